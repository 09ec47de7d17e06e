//! One file a command.

pub mod bench;
pub mod cam;
pub mod data;
pub mod eval;
pub mod export;
pub mod import;
pub mod info;
pub mod predict;
pub mod quickstart;
pub mod runtime;
pub mod scale;
pub mod search;
pub mod soup;
pub mod summary;
pub mod train;
pub mod verify;
