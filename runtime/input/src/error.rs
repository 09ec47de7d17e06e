//! Why an image, a preprocessing description or a model card could not be used.
//! Every text is one line that names the file, field or key.
//! What to do with a bad image (skip it, stop) is the caller's decision.

use std::path::PathBuf;

/// What is wrong with the contents of an image file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageFault {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are those of no image format that is read here.
    #[error("not an image in a supported format (JPEG, PNG, WebP, BMP)")]
    NotAnImage,
    /// A picture in a known format that is not read here.
    #[error("{format} images are not read here: {remedy}")]
    OtherFormat {
        /// The format's name.
        format: &'static str,
        /// What to do with it.
        remedy: &'static str,
    },
    /// The data end before the picture does.
    #[error("the image is cut short")]
    Truncated,
    /// The file has several frames.
    #[error("an animation, not a photo: save the frame that is meant as a file of its own")]
    Animated,
    /// Decoding it would take more memory than the limits allow.
    #[error("the image is too large: {0}")]
    TooLarge(String),
    /// A valid file that uses a feature the decoder does not have.
    #[error("unsupported image: {0}")]
    Unsupported(String),
    /// The decoder found damaged data.
    #[error("damaged image: {0}")]
    Damaged(String),
}

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file could not be read at all.
    #[error("{}: cannot read the file: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file was read, and its contents are no usable image.
    #[error("{file}: {fault}")]
    Image {
        /// The file's path, or `image data` for bytes from memory.
        file: String,
        /// What is wrong.
        fault: ImageFault,
    },
    /// An image file was decoded, and its pixels cannot be used.
    #[error("{}: {source}", file.display())]
    Pixels {
        /// The file.
        file: PathBuf,
        /// Why.
        source: Box<InputError>,
    },
    /// An image's pixels cannot be brought to the wanted size.
    #[error("cannot {action}: {reason}")]
    Geometry {
        /// What was asked for.
        action: &'static str,
        /// Why it cannot be done, with the sizes.
        reason: String,
    },
    /// A buffer's length does not fit the image.
    #[error("a buffer of {actual} numbers was given for an image that needs {expected}")]
    BufferLength {
        /// 3 · height · width.
        expected: usize,
        /// The buffer's length.
        actual: usize,
    },
    /// A field of [`Preprocess`](crate::Preprocess) is out of range.
    #[error("preprocessing: {field} is {value}, expected {expected}")]
    Preprocess {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A metadata entry of a model is missing or cannot be understood.
    #[error("metadata {key}: {reason}")]
    Metadata {
        /// The entry's key, for example `tallow.labels`.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
}
