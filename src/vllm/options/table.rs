//! The rows, in the order of the form; a file for each group.

mod advanced;
mod general;
mod instance;
mod lora;
mod model;
mod since;
mod speculative;

use super::row::OptionRow;

const PARTS: [&[OptionRow]; 6] = [
    instance::ROWS,
    model::ROWS,
    speculative::ROWS,
    lora::ROWS,
    general::ROWS,
    advanced::ROWS,
];

const COUNT: usize = {
    let [a, b, c, d, e, f] = PARTS;
    a.len() + b.len() + c.len() + d.len() + e.len() + f.len()
};

/// Every option.
pub static OPTIONS: &[OptionRow] = &joined();

#[expect(
    clippy::indexing_slicing,
    clippy::large_stack_arrays,
    reason = "evaluated by the compiler, which refuses an index out of bounds; const code has no iterators"
)]
const fn joined() -> [OptionRow; COUNT] {
    let mut all = [PARTS[0][0]; COUNT];
    let (mut part, mut at) = (0, 0);
    while part < PARTS.len() {
        let mut i = 0;
        while i < PARTS[part].len() {
            all[at] = PARTS[part][i];
            at += 1;
            i += 1;
        }
        part += 1;
    }
    all
}
