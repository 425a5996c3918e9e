//! The admin API from outside: over HTTPS, as browsers and scripts come.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that misses a field should say so at once"
)]

mod author;
mod bench;
mod door;
mod listed;
mod loading;
mod marks;
mod named;
mod tenants;
mod text;
mod work;
