//! Scales and their ticks: round numbers, whole epochs, decades.
//! Knows numbers only, no drawing.

/// How values become positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// A range of values with the ticks to label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub scale: Scale,
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Covers `low..=high` linearly with about `count` ticks, and ends on ticks.
    pub fn linear(low: f64, high: f64, count: usize) -> Self {
        let high = if high > low { high } else { low + low.abs().max(1.0) };
        let step = round_step((high - low) / count as f64);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let ticks =
            (first as i64..=last as i64).map(|n| (n as f64 * step, format_tick(n as f64 * step, step)));
        Self { scale: Scale::Linear, low: first * step, high: last * step, ticks: ticks.collect() }
    }

    /// Covers the positive `low..=high` with a margin, ticks at powers of ten, and at 2 and 5 times them where the
    /// powers are few; at every second or third power where they are many.
    pub fn log(low: f64, high: f64) -> Self {
        let (low, high) = (low / 1.2, high * 1.2);
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let multiples: &[f64] = if last - first <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = ((last - first) / MOST_DECADES + 1) as usize;
        let powers = (first..=last).filter(|power| power.unsigned_abs() as usize % every == 0);
        let all = powers.flat_map(|power| multiples.iter().map(move |m| (power, m * 10f64.powi(power))));
        let inside = all.filter(|(_, value)| (low..=high).contains(value));
        let ticks = inside.map(|(power, value)| (value, format_tick(value, 10f64.powi(power))));
        Self { scale: Scale::Log, low, high, ticks: ticks.collect() }
    }

    /// Epochs `first..=last`, with ticks at whole numbers only.
    pub fn epochs(first: u64, last: u64) -> Self {
        let step = (round_step((last.max(first + 1) - first) as f64 / 8.0).ceil() as u64).max(1);
        let inner = (first..=last).filter(|epoch| epoch.is_multiple_of(step));
        let mut ticks: Vec<u64> = std::iter::once(first).chain(inner).chain([last]).collect();
        ticks.dedup();
        // The first and last epoch are labelled unless a round one stands too close.
        if ticks.len() > 2 && (ticks[1] - ticks[0]) * 2 < step {
            ticks.remove(1);
        }
        let n = ticks.len();
        if n > 2 && (ticks[n - 1] - ticks[n - 2]) * 2 < step {
            ticks.remove(n - 2);
        }
        let ticks = ticks.into_iter().map(|epoch| (epoch as f64, epoch.to_string())).collect();
        Self { scale: Scale::Linear, low: first as f64, high: last.max(first) as f64, ticks }
    }

    /// Where `value` lies between the ends, 0 to 1; a range of no width puts it in the middle.
    pub fn position(&self, value: f64) -> f64 {
        let map = |v: f64| if self.scale == Scale::Log { v.max(f64::MIN_POSITIVE).log10() } else { v };
        let width = map(self.high) - map(self.low);
        if width > 0.0 { (map(value) - map(self.low)) / width } else { 0.5 }
    }
}

/// Powers of ten that are all labelled.
const MOST_DECADES: i32 = 7;

/// The next of 1, 2, 5, 10 … times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|m| m * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    multiple * power
}

/// `value` with as many decimals as a step of `step` needs; very small and very large ones as 2e-5.
fn format_tick(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if step < 0.9e-4 || step > 0.9e5 {
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    let decimals = (-step.log10() - 1e-9).ceil().max(0.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.1.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_cover_the_range() {
        assert_eq!(labels(&Axis::linear(0.0, 2.3, 5)), ["0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(labels(&Axis::linear(83.0, 100.0, 5)), ["80", "85", "90", "95", "100"]);
        assert_eq!(labels(&Axis::linear(0.0, 0.1, 3)), ["0", "0.05", "0.10"]);
        assert_eq!(labels(&Axis::linear(0.0, 5e-5, 3)), ["0", "2e-5", "4e-5", "6e-5"]);
        let flat = Axis::linear(3.0, 3.0, 4);
        assert!(flat.low <= 3.0 && flat.high > 3.0);
    }

    #[test]
    fn log_ticks_lie_within_the_range() {
        assert_eq!(labels(&Axis::log(0.013, 240.0)), ["0.1", "1", "10", "100"]);
        assert_eq!(labels(&Axis::log(0.03, 2.4)), ["0.05", "0.1", "0.2", "0.5", "1", "2"]);
        assert_eq!(labels(&Axis::log(2e-12, 4e6)), ["1e-9", "1e-6", "0.001", "1", "1000", "1e6"]);
        assert!((Axis::log(0.01, 100.0).position(1.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn epochs_are_whole_and_show_both_ends() {
        assert_eq!(labels(&Axis::epochs(1, 1)), ["1"]);
        assert_eq!(labels(&Axis::epochs(1, 4)), ["1", "2", "3", "4"]);
        assert_eq!(labels(&Axis::epochs(1, 30)), ["1", "5", "10", "15", "20", "25", "30"]);
        assert_eq!(labels(&Axis::epochs(1, 91)), ["1", "20", "40", "60", "80", "91"]);
        assert_eq!(Axis::epochs(1, 1).position(1.0), 0.5);
    }
}
