//! Composition root (being built).
