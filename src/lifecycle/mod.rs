//! Control plane: when a worker lives, and what it takes (being built).
