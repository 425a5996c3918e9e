//! Integration tests: real TLS and hyper on loopback, the stand-in engine as a
//! real process.
#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on should say so at once"
)]

mod admin;
mod cycles;
mod each;
mod faults;
mod figures;
mod floors;
mod gateway;
mod gpus;
mod house;
mod lifecycle;
mod limits;
mod outcomes;
mod process;
mod sim;
mod workers;
