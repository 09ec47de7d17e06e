//! Colour maps whose lightness changes evenly, so that equal steps look equal and a grey print keeps the order: white
//! to dark blue for shares, dark violet over red to light yellow for heat.
//! Colours are chosen in OKLCH (Ottosson 2020, "A perceptual color space for image processing").

use super::canvas::{Color, INK, PAPER};

/// The colour of `share`, 0 (white) to 1 (dark blue).
pub(super) fn blues(share: f64) -> Color {
    let t = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let lightness = 1.0 - 0.67 * t;
    // No chroma at white, most at two thirds, less again where dark blue leaves the sRGB gamut.
    let chroma = 0.155 * (t * 0.78 * std::f64::consts::PI).sin();
    let hue = (235.0 + 30.0 * t).to_radians();
    srgb(lightness, chroma * hue.cos(), chroma * hue.sin())
}

/// The colour of `heat`, 0 (dark violet) to 1 (light yellow).
pub(super) fn heat(heat: f64) -> Color {
    let t = if heat.is_nan() { 0.0 } else { heat.clamp(0.0, 1.0) };
    let lightness = 0.18 + 0.76 * t;
    let chroma = 0.05 + 0.13 * (t * std::f64::consts::PI).sin();
    // Violet (300°) through red (30°) to yellow (105°).
    let hue = (300.0 + 165.0 * t).to_radians();
    srgb(lightness, chroma * hue.cos(), chroma * hue.sin())
}

/// A text colour that reads well on [`blues`]`(share)`.
pub(super) fn ink_on(share: f64) -> Color {
    if share > 0.5 { PAPER } else { INK }
}

/// OKLab to sRGB, cut to the gamut.
fn srgb(l: f64, a: f64, b: f64) -> Color {
    let cube = |v: f64| v * v * v;
    let long = cube(l + 0.396_337_777_4 * a + 0.215_803_757_3 * b);
    let medium = cube(l - 0.105_561_345_8 * a - 0.063_854_172_8 * b);
    let short = cube(l - 0.089_484_177_5 * a - 1.291_485_548_0 * b);
    let [r, g, b] = [
        4.076_741_662_1 * long - 3.307_711_591_3 * medium + 0.230_969_929_2 * short,
        -1.268_438_004_6 * long + 2.609_757_401_1 * medium - 0.341_319_396_5 * short,
        -0.004_196_086_3 * long - 0.703_418_614_7 * medium + 1.707_614_701_0 * short,
    ]
    .map(|linear| {
        let linear = linear.clamp(0.0, 1.0);
        let encoded =
            if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
        (encoded * 255.0).round() as u8
    });
    plotters::style::RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(c: Color) -> f64 {
        let linear = |v: u8| (f64::from(v) / 255.0).powf(2.2);
        0.2126 * linear(c.0) + 0.7152 * linear(c.1) + 0.0722 * linear(c.2)
    }

    #[test]
    fn heat_grows_lighter_evenly() {
        let steps: Vec<f64> = (0..=20).map(|i| luminance(heat(f64::from(i) / 20.0)).cbrt()).collect();
        for pair in steps.windows(2) {
            assert!((0.015..0.065).contains(&(pair[1] - pair[0])), "{steps:?}");
        }
    }

    #[test]
    fn lightness_falls_evenly_from_white() {
        assert_eq!(blues(0.0), PAPER);
        let steps: Vec<f64> = (0..=20).map(|i| luminance(blues(f64::from(i) / 20.0)).cbrt()).collect();
        for pair in steps.windows(2) {
            assert!((0.01..0.06).contains(&(pair[0] - pair[1])), "{steps:?}");
        }
        assert_eq!(blues(f64::NAN), PAPER);
    }
}
