//! The typed layer graph: shapes, costs, initialisation, kernels and execution on candle.
//!
//! A network is described once, as data ([`graph`]); its tensors live in [`Weights`]; everything else is read off
//! those two.

pub mod cam;
pub mod error;
pub mod exec;
pub mod files;
pub mod graph;
pub mod init;
pub mod kernels;
pub mod rng;
pub mod weights;

pub use cam::CamHead;
pub use error::{Error, Result};
pub use exec::Network;
pub use graph::{Graph, GraphBuilder, NodeId};
pub use init::Init;
pub use rng::Rng;
pub use weights::Weights;
