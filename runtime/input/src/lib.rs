//! What goes into a network: decoding image files, resizing, cropping and normalising their pixels,
//! and the model card that records all of it inside an `.onnx` file.
//! Knows neither a tensor library nor an inference engine, so that trainer, exporter and runtime share it.

mod card;
mod decode;
mod error;
mod fault;
mod formats;
mod jpeg;
mod jpeg_pixels;
mod normalize;
mod preprocess;
mod resample;
mod resize;
mod views;

pub use card::{CARD_FORMAT, CARD_PREFIX, CERTIFICATE_KEY, Dtype, ModelCard, OutputKind};
pub use decode::{MAX_PIXELS, MAX_SIDE, decode, decode_file};
pub use error::{ImageFault, InputError};
pub use image::RgbImage;
pub use jpeg::{JpegFrame, jpeg_frame};
pub use normalize::{Normalizer, fill_chw};
pub use preprocess::Preprocess;
pub use resize::{Interpolation, Region, center_crop, resize, resized_crop};
pub use views::{Views, mean_probabilities, softmax};
