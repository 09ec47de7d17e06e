//! The table of precisions.

use std::fmt;

use serde::Serialize;

use super::Precision;
use crate::report::Outcome;
use crate::verify::VerifyOptions;

/// How a network's outputs differ from candle's on the CPU in f32, wherever and in whatever numbers it is computed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrecisionReport {
    /// The `.onnx` file.
    pub file: String,
    /// Images a batch, in the order they were run.
    pub batches: Vec<usize>,
    /// Seed of the random images.
    pub seed: u64,
    /// Whether every row that ran is within its tolerance.
    pub agrees: bool,
    /// One for each side.
    pub rows: Vec<PrecisionRow>,
}

/// One side's part of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrecisionRow {
    /// `candle`, or an engine of the runtime.
    pub engine: String,
    /// `cpu`, `cuda:0`, or `emulated` for the kernels for GPUs on the host.
    pub on: String,
    /// The numbers that it computes in.
    pub precision: Precision,
    /// The largest difference allowed, relative to the largest output.
    pub tolerance: f64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// More about it, such as where the engine's library lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl PrecisionReport {
    pub(super) fn new(file: String, options: &VerifyOptions, rows: Vec<PrecisionRow>) -> Self {
        let bad = |row: &PrecisionRow| {
            matches!(row.outcome, Outcome::Failed { .. } | Outcome::Compared { within: false, .. })
        };
        let agrees = !rows.iter().any(bad);
        Self { file, batches: options.batches.clone(), seed: options.seed, agrees, rows }
    }

    /// The row of an engine on a device in some numbers.
    pub fn row(&self, engine: &str, on: &str, precision: Precision) -> Option<&PrecisionRow> {
        self.rows.iter().find(|row| row.engine == engine && row.on == on && row.precision == precision)
    }
}

impl fmt::Display for PrecisionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batches: Vec<String> = self.batches.iter().map(usize::to_string).collect();
        writeln!(
            f,
            "{}: batches of {} random images, seed {}, beside candle on the CPU in f32",
            self.file,
            batches.join(", "),
            self.seed
        )?;
        writeln!(
            f,
            "{:<12} {:<8} {:<7} {:>10} {:>10} {:>10} {:>7}  result",
            "engine", "on", "numbers", "max abs", "max rel", "allowed", "top-1"
        )?;
        // Why a row did not run is long, and often the same for several: it comes once, below.
        let mut reasons: Vec<&str> = vec![];
        for row in &self.rows {
            let PrecisionRow { engine, on, precision, tolerance, outcome, .. } = row;
            write!(f, "{engine:<12} {on:<8} {precision:<7} ")?;
            let (abs, rel, top1) = match outcome {
                Outcome::Compared { max_abs, max_rel, top1, .. } => {
                    (format!("{max_abs:.2e}"), format!("{max_rel:.2e}"), format!("{:.1} %", 100.0 * top1))
                }
                _ => ("-".into(), "-".into(), "-".into()),
            };
            let result = match outcome {
                Outcome::NotRun { reason } => {
                    let known = reasons.iter().position(|known| known == reason);
                    let number = known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    format!("not run [{}]", number + 1)
                }
                outcome => outcome.in_words(),
            };
            let tolerance = format!("{tolerance:.1e}");
            writeln!(f, "{abs:>10} {rel:>10} {tolerance:>10} {top1:>7}  {result}")?;
        }
        for (number, reason) in reasons.iter().enumerate() {
            writeln!(f, "[{}] {reason}", number + 1)?;
        }
        let compared = self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Compared { .. })).count();
        match (compared, self.agrees) {
            (0, true) => write!(f, "Nothing was compared, so nothing is proved."),
            (_, true) => write!(f, "What ran agrees: {compared} of {} rows.", self.rows.len()),
            (_, false) => write!(f, "Not all of what ran agrees."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(precision: Precision, outcome: Outcome) -> PrecisionRow {
        let on = "cuda:0".into();
        PrecisionRow { engine: "candle".into(), on, precision, tolerance: 1e-5, outcome, note: None }
    }

    fn report(rows: Vec<PrecisionRow>) -> PrecisionReport {
        PrecisionReport::new("m.onnx".into(), &VerifyOptions::default(), rows)
    }

    #[test]
    fn the_table_is_aligned_and_says_why_a_row_did_not_run() {
        let compared = Outcome::Compared { max_abs: 2e-6, max_rel: 1e-6, top1: 1.0, within: true };
        let absent = Outcome::NotRun { reason: "no GPU".into() };
        let rows = [(Precision::F32, compared), (Precision::F16, absent.clone()), (Precision::Bf16, absent)];
        let text = report(rows.map(|(precision, outcome)| row(precision, outcome)).to_vec()).to_string();
        let expected = "\
m.onnx: batches of 1, 3 random images, seed 1, beside candle on the CPU in f32
engine       on       numbers    max abs    max rel    allowed   top-1  result
candle       cuda:0   f32        2.00e-6    1.00e-6     1.0e-5 100.0 %  agrees
candle       cuda:0   f16              -          -     1.0e-5       -  not run [1]
candle       cuda:0   bf16             -          -     1.0e-5       -  not run [1]
[1] no GPU
What ran agrees: 1 of 3 rows.";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_differs_or_fails_does_not_agree_and_what_did_not_run_proves_nothing() {
        let differs = Outcome::Compared { max_abs: 2e-4, max_rel: 1e-4, top1: 1.0, within: false };
        assert!(!report(vec![row(Precision::F32, differs)]).agrees);
        assert!(!report(vec![row(Precision::F32, Outcome::Failed { reason: "broken".into() })]).agrees);
        let nothing = report(vec![row(Precision::F32, Outcome::NotRun { reason: "no GPU".into() })]);
        assert!(nothing.agrees && nothing.to_string().ends_with("so nothing is proved."));
    }
}
