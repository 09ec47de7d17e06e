//! The result of a verification: a row for each engine, as a table for people and as JSON for machines.

use std::fmt;

use serde::Serialize;
use tallow_runtime::{Dtype, ModelInfo};

use crate::verify::{VerifyOptions, tolerance as default_tolerance};

/// How the engines compare on one file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The `.onnx` file.
    pub file: String,
    /// What the file computes in, which decides the tolerance where none is given.
    pub dtype: Dtype,
    /// The engine that the others are compared with.
    pub reference: String,
    /// The largest difference allowed, relative to the reference's largest output.
    pub tolerance: f64,
    /// Images a batch, in the order they were run in one session.
    pub batches: Vec<usize>,
    /// Seed of the random images.
    pub seed: u64,
    /// Channels, rows and columns of the images.
    pub sample: [usize; 3],
    /// Whether nothing speaks against the file: [`Report::agrees`].
    pub agrees: bool,
    /// One for each engine.
    pub engines: Vec<Row>,
    /// Outputs that are not compared, for they are not float32, with their types.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// One engine's part of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `candle`, `ort`, `tract` or `candle-onnx`.
    pub engine: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Distance to the same network in f64, relative to its largest output: what f32 arithmetic makes of this network
    /// in this engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// Each output, where there are several; the row itself has the largest differences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputRow>,
    /// How many of its values are NaN or infinite, of all outputs and batches.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_finite: usize,
    /// Library and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// More about it: where the library lies, or what was done to make the file run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// One output of several.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputRow {
    /// The output's name.
    pub name: String,
    /// The largest difference.
    pub max_abs: f64,
    /// The same, relative to the reference's largest value of that output.
    pub max_rel: f64,
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
        info: ModelInfo,
        sample: [usize; 3],
        options: &VerifyOptions,
        engines: Vec<Row>,
        left_out: Vec<String>,
    ) -> Self {
        let reference = engines.iter().find(|row| row.outcome == Outcome::Reference);
        let reference = reference.map_or("none", |row| &row.engine).to_owned();
        let bad = |row: &Row| {
            matches!(row.outcome, Outcome::Failed { .. } | Outcome::Compared { within: false, .. })
        };
        let compared = engines.iter().any(|row| matches!(row.outcome, Outcome::Compared { .. }));
        let agrees = compared && !engines.iter().any(bad);
        let VerifyOptions { seed, batches, .. } = options.clone();
        let (file, dtype, tolerance) = (info.file, info.dtype, options.tolerance(info.dtype));
        Self { file, dtype, reference, tolerance, batches, seed, sample, agrees, engines, left_out }
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
        let noisy = self.engines.iter().any(|row| row.noise.is_some());
        let noise = |text: &str| if noisy { format!(" {text:>9}") } else { String::new() };
        let header = noise("noise");
        writeln!(f, "{:<12} {:>12} {:>12} {:>7}{header}  result", "engine", "max abs", "max rel", "top-1")?;
        for row in &self.engines {
            let noise = noise(&row.noise.map_or("-".into(), |noise| format!("{noise:.2e}")));
            write!(f, "{:<12} ", row.engine)?;
            match &row.outcome {
                Outcome::Compared { max_abs, max_rel, top1, within } => {
                    let verdict = match within {
                        true => "agrees",
                        false if max_abs.is_infinite() => "DIFFERS: not finite",
                        false => "DIFFERS",
                    };
                    let top1 = format!("{:.1} %", 100.0 * top1);
                    write!(f, "{max_abs:>12.2e} {max_rel:>12.2e} {top1:>7}{noise}  {verdict}")?;
                }
                outcome => write!(f, "{:>12} {:>12} {:>7}{noise}  {}", "-", "-", "-", outcome.in_words())?,
            }
            writeln!(f)?;
        }
        for row in self.engines.iter().filter(|row| !row.outputs.is_empty()) {
            let each = row.outputs.iter().map(|output| format!("`{}` {:.2e}", output.name, output.max_rel));
            writeln!(f, "{}, each output: {}", row.engine, each.collect::<Vec<_>>().join(", "))?;
        }
        let not_finite = self.engines.iter().filter(|row| row.not_finite > 0);
        let not_finite: Vec<String> =
            not_finite.map(|row| format!("{} of {}", row.not_finite, row.engine)).collect();
        if !not_finite.is_empty() {
            let each = not_finite.join(", ");
            writeln!(f, "Values that are NaN or infinite, and so agree with nothing: {each}")?;
        }
        if !self.left_out.is_empty() {
            writeln!(f, "Not compared, for only float32 is: {}", self.left_out.join(", "))?;
        }
        for (engine, note) in self.engines.iter().filter_map(|row| Some((&row.engine, row.note.as_ref()?))) {
            writeln!(f, "{engine}: {note}")?;
        }
        let compared = |row: &Row| matches!(row.outcome, Outcome::Compared { .. });
        if self.engines.iter().any(compared) {
            let verdict = if self.agrees { "agree" } else { "do NOT agree" };
            let (tolerance, reference) = (self.tolerance, &self.reference);
            write!(f, "The engines {verdict} within {tolerance:.0e} of the largest output of {reference}.")?;
            if self.dtype == Dtype::F16 {
                write!(
                    f,
                    " The file computes in float16, for which the tolerance is {:.0e}, not {:.0e} as for float32.",
                    default_tolerance(Dtype::F16),
                    default_tolerance(Dtype::F32)
                )?;
            }
        } else {
            write!(
                f,
                "Nothing was compared, so nothing is proved: that takes two engines that run the file."
            )?;
        }
        let absent = |row: &&Row| matches!(row.outcome, Outcome::NotRun { .. });
        let absent: Vec<&str> = self.engines.iter().filter(absent).map(|row| row.engine.as_str()).collect();
        if !absent.is_empty() {
            write!(f, " Not run, so not proved: {}.", absent.join(", "))?;
        }
        self.noise_in_words().map_or(Ok(()), |text| write!(f, "\n{text}"))
    }
}

/// Up to how many times candle's distance to f64 rounding explains a difference: two engines that each round as candle
/// does are at most twice as far apart, and another order of summation may round somewhat worse.
pub(crate) const ROUNDING: f64 = 3.0;

impl Report {
    /// How far candle is from f64, and whether that explains what differs; `None` where nothing differs, where that is not
    /// known, and for a float16 file, whose rounding candle in float32 knows nothing of.
    fn rounding(&self) -> Option<(f64, bool)> {
        if self.dtype == Dtype::F16 {
            return None;
        }
        let candle = self.row("candle")?.noise.filter(|noise| noise.is_finite())?;
        let differs = |row: &Row| match row.outcome {
            Outcome::Compared { max_rel, within: false, .. } => Some(max_rel),
            _ => None,
        };
        let furthest = self.engines.iter().filter_map(differs).reduce(f64::max)?;
        Some((candle, furthest <= ROUNDING * candle))
    }

    /// Whether an engine differs by more than rounding does, so that its layers are worth looking at.
    pub fn is_beyond_rounding(&self) -> bool {
        matches!(self.rounding(), Some((_, false)))
    }

    fn noise_in_words(&self) -> Option<String> {
        Some(match self.rounding()? {
            (candle, true) => format!(
                "Rounding alone does that: candle itself is {candle:.1e} away from the same network in f64, which \
                 amplifies rounding beyond the tolerance in any f32 engine."
            ),
            (candle, false) => format!(
                "Rounding does not explain it: candle is {candle:.1e} away from the same network in f64."
            ),
        })
    }
}

impl Outcome {
    /// In words, for what is no comparison.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::NotRun { reason } => format!("not run: {reason}"),
            Self::NotRunnable { missing } => format!("not runnable here: {missing}"),
            Self::Failed { reason } => format!("FAILED: {reason}"),
            Self::Reference => "reference".into(),
            Self::Compared { within, .. } => if *within { "agrees" } else { "DIFFERS" }.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tallow_runtime::{Element, TensorInfo};

    use super::*;

    fn row(engine: &str, outcome: Outcome, note: Option<&str>) -> Row {
        let note = note.map(str::to_owned);
        Row {
            engine: engine.into(),
            outcome,
            noise: None,
            outputs: vec![],
            not_finite: 0,
            version: None,
            note,
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        let options = VerifyOptions { seed: 7, ..VerifyOptions::default() };
        let info = ModelInfo {
            file: "m.onnx".into(),
            ir_version: 8,
            opset: 17,
            producer: String::new(),
            input: TensorInfo { name: "images".into(), dims: None },
            element: Element::Float,
            outputs: vec![],
            dtype: Dtype::F32,
            props: vec![],
        };
        Report::new(info, [3, 8, 8], &options, rows, vec![])
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
        assert!(report(vec![candle()]).to_string().contains("Nothing was compared"));
        assert!(!report(vec![candle(), tract(), row("ort", compared(2e-5), None)]).agrees);
        assert!(!report(vec![candle(), tract(), row("ort", compared(f64::NAN), None)]).agrees);
        let failed = Outcome::Failed { reason: "broken".into() };
        assert!(!report(vec![candle(), tract(), row("ort", failed, None)]).agrees);
    }

    #[test]
    fn rounding_is_told_from_what_it_does_not_explain() {
        let with_noise = |max_rel: f64, noise: f64| {
            let candle = Row { noise: Some(noise), ..row("candle", Outcome::Reference, None) };
            let ort = Row { noise: Some(noise), ..row("ort", compared(max_rel), None) };
            report(vec![candle, ort])
        };
        let loud = with_noise(1.2e-4, 8e-5);
        assert!(!loud.agrees);
        let text = loud.to_string();
        assert!(text.contains("   top-1     noise  result"), "{text}");
        assert!(text.contains("100.0 %   8.00e-5  DIFFERS"), "{text}");
        assert!(text.contains("do NOT agree") && text.contains("candle itself is 8.0e-5 away"), "{text}");
        let text = with_noise(1.2e-4, 2e-6).to_string();
        assert!(text.contains("Rounding does not explain it: candle is 2.0e-6 away"), "{text}");
        let half = Report { dtype: Dtype::F16, ..with_noise(1.2e-4, 2e-6) };
        assert!(!half.is_beyond_rounding() && !half.to_string().contains("Rounding"), "{half}");
        let text = with_noise(2e-6, 2e-6).to_string();
        assert!(text.contains("noise") && !text.contains("Rounding"), "{text}");
    }

    #[test]
    fn what_is_not_finite_or_left_out_is_told() {
        let mut found = report(vec![
            row("candle", Outcome::Reference, None),
            Row { not_finite: 12, ..row("tract", compared(f64::INFINITY), None) },
        ]);
        found.left_out = vec!["`class` (int64)".into()];
        let text = found.to_string();
        assert!(text.contains("100.0 %  DIFFERS: not finite\n"), "{text}");
        assert!(text.contains("NaN or infinite, and so agree with nothing: 12 of tract\n"), "{text}");
        assert!(text.contains("Not compared, for only float32 is: `class` (int64)\n"), "{text}");
    }

    #[test]
    fn json_has_the_status_of_each_engine() {
        let json = serde_json::to_value(report(vec![row("tract", compared(1e-6), None)])).unwrap();
        assert_eq!(json["agrees"], true);
        assert_eq!(json["engines"][0]["status"], "compared");
        assert_eq!(json["engines"][0]["within"], true);
    }
}
