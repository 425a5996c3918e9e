//! Times of the pieces of a request: `cargo bench -p tidegate-bench`.

#![expect(
    clippy::panic,
    reason = "a piece that can't be made ends the bench, as in a test"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_bench::parts::PARTS;

fn pieces(criterion: &mut Criterion) {
    for part in PARTS {
        let mut run = (part.make)().unwrap_or_else(|error| panic!("{}: {error}", part.name));
        criterion.bench_function(part.name, |bencher| bencher.iter(&mut run));
    }
}

criterion_group!(all, pieces);
criterion_main!(all);
