//! The network zoo: plain CNN, ResNet and EfficientNet as layer graphs.
