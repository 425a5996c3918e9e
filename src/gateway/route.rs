//! Route of a request: by its model's name, or to where its response is kept.

pub mod apis;
pub mod find;
pub mod paths;
pub mod stored;
pub mod table;
