//! Compound scaling's rounding of widths and depths (Tan & Le 2019, "EfficientNet: rethinking model scaling for
//! convolutional neural networks", section 3.3; the rounding is that of the paper's code).

/// Channels are whole multiples of this.
const DIVISOR: f64 = 8.0;

/// The largest factor: beyond every published network (EfficientNet-L2 is 4.3 times as wide and 5.3 times as deep as
/// B0), and within what a machine can count.
const MOST: f64 = 16.0;

/// How much wider and deeper a network is than its baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Factor on channels.
    pub width: f64,
    /// Factor on the repeats of a stage.
    pub depth: f64,
}

impl Default for Scaling {
    fn default() -> Self {
        Self::NONE
    }
}

impl Scaling {
    /// The baseline itself.
    pub const NONE: Self = Self { width: 1.0, depth: 1.0 };

    /// This factor and another one.
    pub fn times(self, other: Self) -> Self {
        Self { width: self.width * other.width, depth: self.depth * other.depth }
    }

    /// The factor that no network can be built with, and what is wrong with it.
    pub(crate) fn problem(self) -> Option<(&'static str, String)> {
        let factors = [("width factor", self.width), ("depth factor", self.depth)];
        let wrong = factors.into_iter().find(|(_, factor)| !(*factor > 0.0 && *factor <= MOST));
        wrong.map(|(name, factor)| (name, format!("must be above 0 and at most {MOST}, is {factor}")))
    }

    /// Scaled channels: the nearest multiple of 8, at least 8, and never more than a tenth below the exact value. At
    /// factor 1 they are what they were.
    pub fn channels(self, base: usize) -> usize {
        if self.width == 1.0 {
            return base;
        }
        let exact = base as f64 * self.width;
        let rounded = (((exact + DIVISOR / 2.0) / DIVISOR).floor() * DIVISOR).max(DIVISOR);
        let rounded = if rounded < 0.9 * exact { rounded + DIVISOR } else { rounded };
        rounded as usize
    }

    /// Scaled repeats, rounded up.
    pub fn repeats(self, base: usize) -> usize {
        (base as f64 * self.depth).ceil() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_round_as_the_papers_code_does() {
        let width = |width| Scaling { width, depth: 1.0 };
        assert_eq!(width(1.1).channels(32), 32); // 35.2
        assert_eq!(width(1.1).channels(16), 16); // 17.6
        assert_eq!(width(1.4).channels(16), 24); // 22.4: 24 is nearest
        assert_eq!(width(1.2).channels(40), 48);
        assert_eq!(width(0.35).channels(32), 16); // 11.2: 8 is nearest, but more than a tenth below
        assert_eq!(width(0.1).channels(16), 8);
        assert_eq!(width(1.0).channels(12), 12);
    }

    #[test]
    fn repeats_round_up() {
        let depth = |depth| Scaling { width: 1.0, depth };
        assert_eq!([1, 2, 3, 4].map(|n| depth(1.1).repeats(n)), [2, 3, 4, 5]);
        assert_eq!([1, 2, 3, 4].map(|n| depth(3.1).repeats(n)), [4, 7, 10, 13]);
        assert_eq!(Scaling::NONE.repeats(3), 3);
    }
}
