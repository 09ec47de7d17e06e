//! How large images are, as a flag says it.

use std::str::FromStr;

use tallow_input::MAX_SIDE;

/// Rows and columns: `224`, or `240x320` (height × width, the order of all shapes that Tallow shows).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    pub height: u32,
    pub width: u32,
}

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (height, width) = text.split_once(['x', '×']).unwrap_or((text, text));
        let side = |text: &str| match text.trim().parse() {
            Ok(side) if (1..=MAX_SIDE).contains(&side) => Ok(side),
            Ok(_) => Err(format!("height and width must lie in 1 to {MAX_SIDE}")),
            Err(_) => Err("pixels are needed: one number, or HEIGHTxWIDTH such as 240x320".to_owned()),
        };
        Ok(Self { height: side(height)?, width: side(width)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_a_square_and_two_are_rows_and_columns() {
        assert_eq!("224".parse(), Ok(ImageSize { height: 224, width: 224 }));
        assert_eq!("240x320".parse(), Ok(ImageSize { height: 240, width: 320 }));
        assert_eq!("240×320".parse(), Ok(ImageSize { height: 240, width: 320 }));
        for wrong in ["", "x", "0", "-1", "1.5", "240x", "240x0", "99999", "1x2x3", "99999999999"] {
            assert!(wrong.parse::<ImageSize>().is_err(), "{wrong}");
        }
    }
}
