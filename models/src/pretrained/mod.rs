//! Weights that others published: how their files call the layers, which network a file is of, what the classes are
//! called.

mod identify;
mod imagenet;
mod layout;

pub use identify::{Identity, identify};
pub use imagenet::imagenet_labels;
pub use layout::Layout;
