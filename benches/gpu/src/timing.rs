//! How something is timed: warmed up, then in windows of many runs each, of which the median counts.

use std::time::Instant;

use anyhow::Result;

/// How long to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Runs before anything is timed: cuDNN measures its algorithms in the first
    #[arg(long, default_value_t = 5)]
    warmup: usize,
    /// Windows, of which the median counts
    #[arg(long, default_value_t = 5)]
    windows: usize,
    /// Seconds of a window; it holds as many runs
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

impl Args {
    /// Hardly any time: to see that it runs.
    pub fn quick() -> Self {
        Self { warmup: 1, windows: 2, seconds: 0.0 }
    }

    /// The seconds that a run takes in each window. `work` may return before its end; `wait` returns when all work has
    /// ended.
    pub fn measure(
        self,
        mut work: impl FnMut() -> Result<()>,
        wait: impl Fn() -> Result<()>,
    ) -> Result<Vec<f64>> {
        let runs = self.warm_up(&mut work, &wait)?;
        (0..self.windows.max(1)).map(|_| window(runs, &mut work, &wait)).collect()
    }

    /// Warms up and says how many runs a window holds.
    pub fn warm_up(
        self,
        mut work: impl FnMut() -> Result<()>,
        wait: impl Fn() -> Result<()>,
    ) -> Result<usize> {
        for _ in 0..self.warmup {
            work()?;
        }
        wait()?;
        // Two, so that a run's beginning overlaps with the end of another as in a window.
        let pilot = window(2, &mut work, &wait)?;
        Ok(((self.seconds / pilot).ceil() as usize).max(1))
    }

    /// The seconds until a run's `work` returns where nothing waits in front of it: what the host needs to hand a GPU its
    /// work. The median of as many runs as there are windows.
    pub fn measure_host(
        self,
        mut work: impl FnMut() -> Result<()>,
        wait: impl Fn() -> Result<()>,
    ) -> Result<f64> {
        let mut seconds = vec![];
        for _ in 0..self.windows() {
            wait()?;
            let start = Instant::now();
            work()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        wait()?;
        Ok(median(&seconds))
    }

    pub fn windows(self) -> usize {
        self.windows.max(1)
    }
}

/// The seconds that each of `runs` runs takes, one behind the other.
pub fn window(
    runs: usize,
    mut work: impl FnMut() -> Result<()>,
    wait: impl Fn() -> Result<()>,
) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..runs {
        work()?;
    }
    wait()?;
    Ok(start.elapsed().as_secs_f64() / runs as f64)
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn each_window_waits_once_and_the_warm_up_is_not_counted() {
        let runs = std::cell::Cell::new(0);
        let waits = std::cell::Cell::new(0);
        let args = Args { warmup: 3, windows: 4, seconds: 0.0 };
        let work = || {
            runs.set(runs.get() + 1);
            Ok(())
        };
        let wait = || {
            waits.set(waits.get() + 1);
            Ok(())
        };
        assert_eq!(args.measure(work, wait).unwrap().len(), 4);
        assert_eq!((runs.get(), waits.get()), (3 + 2 + 4, 1 + 1 + 4));
        assert!(args.measure_host(work, wait).unwrap() >= 0.0);
        assert_eq!(
            (runs.get(), waits.get()),
            (9 + 4, 6 + 4 + 1),
            "each run begins when nothing is left to do"
        );
    }
}
