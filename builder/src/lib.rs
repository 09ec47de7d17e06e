//! The typed layer graph: shapes, costs, initialisation, kernels and execution on candle.
//!
//! A network is described once, as data ([`graph`]); everything else is read off that description.

pub mod rng;

pub use rng::Rng;
