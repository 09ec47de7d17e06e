//! One file a command.

pub mod bench;
pub mod data;
pub mod eval;
pub mod export;
pub mod import;
pub mod predict;
pub mod quickstart;
pub mod runtime;
pub mod scale;
pub mod search;
pub mod summary;
pub mod train;
pub mod verify;
