//! Version of vLLM whose behaviour the stand-in has.

/// The version of vLLM whose behaviour this is.
pub const VERSION: &str = "0.32.0";
