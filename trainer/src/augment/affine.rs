//! Shear, translation and rotation as torchvision does them on PIL images, equal to the bit: the inverse matrix in
//! double precision, then Pillow's affine transform, whose nearest filter counts in 16.16 fixed point. What comes from
//! outside is black.

use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

/// How a pixel is taken from between pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AffineFilter {
    /// The pixel it falls into; torchvision's default.
    #[default]
    Nearest,
    /// A weighted mean of the four around it.
    Bilinear,
}

/// From a place in the result to one in the image: x = a·x + b·y + c, y = d·x + e·y + f.
#[derive(Clone, Copy)]
struct Inverse([f64; 6]);

/// Shears rows along x by `level` pixels a row, about the upper left corner.
pub(super) fn shear_x(image: &RgbImage, level: f64, filter: AffineFilter) -> RgbImage {
    // torchvision is given atan(level) in degrees and takes the tangent of that.
    let shear = level.atan().to_degrees().to_radians();
    Inverse::sheared(shear, 0.0).apply(image, filter)
}

/// Shears columns along y by `level` pixels a column, about the upper left corner.
pub(super) fn shear_y(image: &RgbImage, level: f64, filter: AffineFilter) -> RgbImage {
    let shear = level.atan().to_degrees().to_radians();
    Inverse::sheared(0.0, shear).apply(image, filter)
}

/// Moves the image by whole pixels to the right and down.
pub(super) fn translate(image: &RgbImage, right: i64, down: i64) -> RgbImage {
    let mut moved = RgbImage::new(image.width(), image.height());
    image::imageops::replace(&mut moved, image, right, down);
    moved
}

/// Turns the image counterclockwise about its centre.
pub(super) fn rotate(image: &RgbImage, degrees: f64, filter: AffineFilter) -> RgbImage {
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return image.clone();
    }
    let angle = -degrees.to_radians();
    // Rounded as Pillow does, so that quarter turns are exact.
    let round = |value: f64| format!("{value:.15}").parse().expect("a number that was just written");
    let (a, b, d) = (round(angle.cos()), round(angle.sin()), round(-angle.sin()));
    let (x, y) = (f64::from(image.width()) / 2.0, f64::from(image.height()) / 2.0);
    let (c, f) = (a * -x + b * -y + x, d * -x + a * -y + y);
    Inverse([a, b, c, d, a, f]).apply(image, filter)
}

impl Inverse {
    /// torchvision's `_get_inverse_affine_matrix` without rotation, scale or translation, about (0, 0).
    fn sheared(x: f64, y: f64) -> Self {
        let a = (-y).cos() / y.cos();
        let b = -(-y).cos() * x.tan() / y.cos();
        let c = (-y).sin() / y.cos();
        let d = -(-y).sin() * x.tan() / y.cos() + 1.0;
        Self([d, -b, 0.0, -c, a, 0.0])
    }

    fn apply(self, image: &RgbImage, filter: AffineFilter) -> RgbImage {
        match filter {
            AffineFilter::Nearest => self.nearest(image),
            AffineFilter::Bilinear => self.bilinear(image),
        }
    }

    fn nearest(self, image: &RgbImage) -> RgbImage {
        let [a, b, c, d, e, f] = self.0;
        let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
        let (right, down) = ([fixed(a), fixed(d)], [fixed(b), fixed(e)]);
        let start = [fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)];
        RgbImage::from_fn(image.width(), image.height(), |x, y| {
            let at =
                |axis: usize| (start[axis] + i64::from(x) * right[axis] + i64::from(y) * down[axis]) >> 16;
            let (Ok(x), Ok(y)) = (u32::try_from(at(0)), u32::try_from(at(1))) else { return BLACK };
            image.get_pixel_checked(x, y).copied().unwrap_or(BLACK)
        })
    }

    fn bilinear(self, image: &RgbImage) -> RgbImage {
        let [a, b, c, d, e, f] = self.0;
        let (width, height) = image.dimensions();
        RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (f64::from(x) + 0.5, f64::from(y) + 0.5);
            let (x, y) = (a * x + b * y + c, d * x + e * y + f);
            if !((0.0..f64::from(width)).contains(&x) && (0.0..f64::from(height)).contains(&y)) {
                return BLACK;
            }
            // The first and last half pixel have no neighbour on one side; their own edge stands in.
            let around = |at: f64, side: u32| {
                let at = at - 0.5;
                let first = if at < 0.0 { -1 } else { at as i64 };
                let inside = |at: i64| at.clamp(0, i64::from(side) - 1) as u32;
                (inside(first), inside(first + 1), at - first as f64)
            };
            let (left, right, dx) = around(x, width);
            let (top, bottom, dy) = around(y, height);
            let pixel = |x: u32, y: u32| image.get_pixel(x, y).0.map(f64::from);
            let between = |y: u32| {
                let (a, b) = (pixel(left, y), pixel(right, y));
                [0, 1, 2].map(|channel| a[channel] + (b[channel] - a[channel]) * dx)
            };
            let (above, below) = (between(top), between(bottom));
            Rgb([0, 1, 2].map(|channel| (above[channel] + (below[channel] - above[channel]) * dy) as u8))
        })
    }
}

const BLACK: Rgb<u8> = Rgb([0; 3]);
