//! x
pub const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "bmp"];
use super::*;
pub fn open(_path: &str, _split: SplitOptions) -> Result<Splits> {
    todo!()
}
