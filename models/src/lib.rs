//! The network zoo: plain CNN, ResNet and EfficientNet as layer graphs, one file a family.
//!
//! [`build`] makes a graph from a name; each family's spec ([`ResNet`], [`EfficientNet`], [`PlainCnn`]) makes those
//! that have no name, and [`Options`] scale any of them. Parameters are called as torchvision calls them.

mod compound;
mod efficientnet;
mod efficientnet_lite;
mod error;
mod layers;
mod options;
mod plain_cnn;
mod pretrained;
mod registry;
mod resnet;
mod scaling;
mod stages;
mod table;
mod timm;

pub use compound::{Compound, PUBLISHED, Published, Scaled};
pub use efficientnet::EfficientNet;
pub use error::{Error, Result};
pub use options::{Options, PaddingStyle};
pub use plain_cnn::PlainCnn;
pub use pretrained::{Identity, Layout, identify, imagenet_labels};
pub use registry::{
    Architecture, Family, architectures, build, edit_distance, find, names, timm_architectures,
};
pub use resnet::{Block, ResNet, Stem};
pub use scaling::Scaling;
pub use stages::{StageCost, stages};
pub use table::{Stage, Table};
