//! From a routed request to a server that takes it, or a refusal.
//!
//! A request counts for its token and workspace from its head on ([`concurrency`]).
//! [`admit`](fn@admit) first takes from its token's budgets; then a slot of the route
//! ([`admit::seat`]), then one of the deployment ([`queue`]), then it goes through the gate, at
//! which it waits for the worker that its demand starts ([`cold`]). Where a list says who
//! is asked, what comes after the slot of the route is done once for each target ([`course`]);
//! no request waits for a place while it has another. Everything is held by value: a request
//! that is dropped here, in whatever wait, leaves nothing behind.

mod admit;
mod again;
mod back;
mod cold;
pub mod concurrency;
mod course;
mod place;
mod queue;
mod workers;

pub use admit::{Admission, Call, Seated, admit, place, seat};
pub use again::Again;
pub use back::admit_back;
pub use cold::load;
pub use course::{Course, Failed, Step};
pub use place::Place;
