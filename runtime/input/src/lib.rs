//! What goes into a network: image decoding, resizing, cropping, normalising, and the metadata that records it.
