//! The binary as its users meet it: every command, its files, its exit codes, and what it says about bad input.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An error is one line that names the file and the
//! remedy, never a panic, and nothing that was there before is harmed.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod averaging;
mod bad_data;
mod bad_files;
mod bad_settings;
mod cam;
mod data;
mod devices;
mod engines;
mod export;
mod fine_tuning;
mod hub;
mod import;
mod interruption;
mod predict;
mod processes;
mod scale;
mod search;
mod summary;
mod support;
mod train;
mod verify;
