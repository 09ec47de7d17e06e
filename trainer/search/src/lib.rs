//! Searches for networks by training candidates in child processes: the grid search of compound scaling ([`scaling`]) and
//! regularised evolution of architectures ([`architecture`]). [`drive`] runs either; everything is in one folder, from
//! which the same search goes on after any end:
//!
//! ```text
//! search.json     what decides the candidates; another search in this folder is refused
//! results.jsonl   a line for each candidate that was trained
//! candidates/     for each its settings, its run directory and what its training said
//! pareto.png  best.toml
//! ```

pub mod architecture;
mod basis;
mod drive;
mod error;
mod journal;
pub mod objective;
mod pareto;
pub mod scaling;
mod workers;

pub use basis::{Basis, Candidate};
pub use drive::{Ended, Plan, drive};
pub use error::{Error, Result};
pub use journal::{Journal, Measured, Results};
pub use pareto::front;
pub use workers::Workers;
