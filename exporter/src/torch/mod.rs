//! Weights out of PyTorch's `.pth` and `.pt` files: a pickled state dict and the bytes of its tensors.
//!
//! Nothing of a file is ever executed: the pickle is read as data, calls in it are recognised by name, and whatever is
//! not a tensor is passed over.

mod file;
mod pickle;
mod state_dict;

pub(crate) use file::LEGACY;
pub use state_dict::read_state_dict;
