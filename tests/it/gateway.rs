//! The data plane from outside: what clients and servers see of it.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads past an end should say so at once"
)]

mod along;
mod apis;
mod bench;
mod cancel;
mod certs;
mod crowds;
mod dead;
mod door;
mod edge;
mod ending;
mod endpoints;
mod exact;
mod floods;
mod foreign;
mod framing;
mod held;
mod keeping;
mod lasting;
mod listed;
mod loading;
mod media;
mod mirrored;
mod named;
mod passing;
mod pseudo;
mod realtime;
mod secure;
mod several;
mod slots;
