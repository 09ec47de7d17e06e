//! The result of a verification: a row for each engine, as a table for people and as JSON for machines.

use std::fmt;

use serde::Serialize;

/// How the engines compare on one file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The `.onnx` file.
    pub file: String,
    /// The engine that the others are compared with.
    pub reference: String,
    /// The largest difference allowed, relative to the reference's largest output.
    pub tolerance: f64,
    /// Images a batch, in the order they were run in one session.
    pub batches: Vec<usize>,
    /// Seed of the random images.
    pub seed: u64,
    /// Whether nothing speaks against the file: [`Report::agrees`].
    pub agrees: bool,
    /// One for each engine.
    pub engines: Vec<Row>,
}

/// One engine's part of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `candle`, `ort`, `tract` or `candle-onnx`.
    pub engine: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Library and version, or what was done to make it run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What came of running an engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// The others are compared with it.
    Reference,
    /// It ran.
    Compared {
        /// The largest difference of any output.
        max_abs: f64,
        /// The same, relative to the reference's largest output.
        max_rel: f64,
        /// Share of images for which both put the same class first, 0 to 1.
        top1: f64,
        /// Whether `max_rel` is within the tolerance.
        within: bool,
    },
    /// It is not here: a library or the layer graph is missing.
    NotRun {
        /// What is missing, and the remedy.
        reason: String,
    },
    /// It does not have an operator that the file needs.
    NotRunnable {
        /// The operator and what about it.
        missing: String,
    },
    /// It refused the file, or failed on it.
    Failed {
        /// The engine's reason.
        reason: String,
    },
}

impl Report {
    pub(crate) fn new(
        file: String,
        reference: String,
        tolerance: f64,
        batches: Vec<usize>,
        seed: u64,
        engines: Vec<Row>,
    ) -> Self {
        let bad = |row: &Row| {
            matches!(row.outcome, Outcome::Failed { .. } | Outcome::Compared { within: false, .. })
        };
        let compared = engines.iter().any(|row| matches!(row.outcome, Outcome::Compared { .. }));
        let agrees = compared && !engines.iter().any(bad);
        Self { file, reference, tolerance, batches, seed, agrees, engines }
    }

    /// The row of an engine.
    pub fn row(&self, engine: &str) -> Option<&Row> {
        self.engines.iter().find(|row| row.engine == engine)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batches: Vec<String> = self.batches.iter().map(usize::to_string).collect();
        writeln!(f, "{}: batches of {} random images, seed {}", self.file, batches.join(", "), self.seed)?;
        writeln!(f, "{:<12} {:>12} {:>12} {:>7}  result", "engine", "max abs", "max rel", "top-1")?;
        for row in &self.engines {
            write!(f, "{:<12} ", row.engine)?;
            match &row.outcome {
                Outcome::Compared { max_abs, max_rel, top1, within } => {
                    let verdict = if *within { "agrees" } else { "DIFFERS" };
                    let top1 = format!("{:.1} %", 100.0 * top1);
                    write!(f, "{max_abs:>12.2e} {max_rel:>12.2e} {top1:>7}  {verdict}")?;
                }
                outcome => {
                    let text = match outcome {
                        Outcome::NotRun { reason } => format!("not run: {reason}"),
                        Outcome::NotRunnable { missing } => format!("not runnable here: {missing}"),
                        Outcome::Failed { reason } => format!("FAILED: {reason}"),
                        _ => "reference".into(),
                    };
                    write!(f, "{:>12} {:>12} {:>7}  {text}", "-", "-", "-")?;
                }
            }
            writeln!(f)?;
        }
        for (engine, note) in self.engines.iter().filter_map(|row| Some((&row.engine, row.note.as_ref()?))) {
            writeln!(f, "{engine}: {note}")?;
        }
        let verdict = if self.agrees { "agree" } else { "do NOT agree" };
        write!(
            f,
            "The engines {verdict} within {:.0e} of the largest output of {}.",
            self.tolerance, self.reference
        )?;
        let absent = |row: &&Row| matches!(row.outcome, Outcome::NotRun { .. });
        let absent: Vec<&str> = self.engines.iter().filter(absent).map(|row| row.engine.as_str()).collect();
        if absent.is_empty() { Ok(()) } else { write!(f, " Not run, so not proved: {}.", absent.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(engine: &str, outcome: Outcome, note: Option<&str>) -> Row {
        Row { engine: engine.into(), outcome, note: note.map(str::to_owned) }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report::new("m.onnx".into(), "candle".into(), 1e-5, vec![1, 3], 7, rows)
    }

    fn compared(max_rel: f64) -> Outcome {
        Outcome::Compared { max_abs: 2.0 * max_rel, max_rel, top1: 1.0, within: max_rel <= 1e-5 }
    }

    #[test]
    fn the_table_is_aligned_and_says_everything() {
        let text = report(vec![
            row("candle", Outcome::Reference, None),
            row("ort", Outcome::NotRun { reason: "no library".into() }, None),
            row("tract", compared(1.25e-6), Some("tract 0.23.9 on CPU")),
            row("candle-onnx", Outcome::NotRunnable { missing: "AveragePool pads".into() }, None),
        ])
        .to_string();
        let expected = "\
m.onnx: batches of 1, 3 random images, seed 7
engine            max abs      max rel   top-1  result
candle                  -            -       -  reference
ort                     -            -       -  not run: no library
tract             2.50e-6      1.25e-6 100.0 %  agrees
candle-onnx             -            -       -  not runnable here: AveragePool pads
tract: tract 0.23.9 on CPU
The engines agree within 1e-5 of the largest output of candle. Not run, so not proved: ort.";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_difference_a_failure_or_nothing_to_compare_is_no_agreement() {
        let candle = || row("candle", Outcome::Reference, None);
        let tract = || row("tract", compared(1e-7), None);
        assert!(report(vec![candle(), tract()]).agrees);
        assert!(!report(vec![candle()]).agrees);
        assert!(!report(vec![candle(), tract(), row("ort", compared(2e-5), None)]).agrees);
        assert!(!report(vec![candle(), tract(), row("ort", compared(f64::NAN), None)]).agrees);
        let failed = Outcome::Failed { reason: "broken".into() };
        assert!(!report(vec![candle(), tract(), row("ort", failed, None)]).agrees);
    }

    #[test]
    fn json_has_the_status_of_each_engine() {
        let json = serde_json::to_value(report(vec![row("tract", compared(1e-6), None)])).unwrap();
        assert_eq!(json["agrees"], true);
        assert_eq!(json["engines"][0]["status"], "compared");
        assert_eq!(json["engines"][0]["within"], true);
    }
}
