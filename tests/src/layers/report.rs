//! What a comparison of layers found, as a table for people and as JSON for machines.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tallow_runtime::Dtype;

use crate::report::ROUNDING;
use crate::verify::VerifyOptions;

/// How the engines compare on every value of a graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// The `.onnx` file.
    pub file: String,
    /// The engine that values are compared with.
    pub reference: String,
    /// The largest difference allowed, relative to the reference's largest magnitude of the value.
    pub tolerance: f64,
    /// Images a batch.
    pub batches: Vec<usize>,
    /// Seed of the random images.
    pub seed: u64,
    /// The engines and what came of them.
    pub engines: Vec<LayerEngine>,
    /// Of the values beyond the tolerance the first, in the order of computation, in which a difference comes into
    /// being; where there is none, the first whose inputs explain it, and then the first that rounding explains.
    pub first: Option<Culprit>,
    /// Every value, in the order of computation.
    pub layers: Vec<LayerRow>,
}

/// An engine's part in a comparison of layers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerEngine {
    /// `candle`, `ort`, `tract` or `candle-onnx`.
    pub engine: String,
    /// Why it has no values here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Library and version, or what was done to make it run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A value of the graph: a layer's output, or a step within a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRow {
    /// The name of the node that gives it; files of Tallow's call nodes as the network calls its layers.
    pub layer: String,
    /// Its own name in the file.
    pub value: String,
    /// The operator that gives it.
    pub op: String,
    /// The operator's attributes.
    pub attributes: String,
    /// Its shape in the first batch.
    pub shape: Vec<usize>,
    /// The values it is computed from.
    pub inputs: Vec<String>,
    /// The engine that the others are compared with.
    pub reference: String,
    /// The largest difference of each engine.
    pub differences: Differences,
    /// candle's distance to f64, relative in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
}

/// How far each engine is from the reference.
pub type Differences = BTreeMap<String, LayerDifference>;

/// How far an engine is from the reference in one value. Infinite, which JSON has as null, for another shape or numbers
/// that are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerDifference {
    /// The largest difference.
    pub max_abs: f64,
    /// The same, relative to the reference's largest magnitude of the value.
    pub max_rel: f64,
}

/// The first layer that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Culprit {
    /// The layer.
    #[serde(flatten)]
    pub row: LayerRow,
    /// The layers that it takes, with their own differences; the images have none.
    pub inputs_differences: Vec<(String, Differences)>,
    /// How the difference came about.
    pub origin: Origin,
}

/// How a difference came about, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It is far larger than the inputs' differences, so that it comes into being in this layer.
    Layer,
    /// The inputs differ nearly as much.
    Inputs,
    /// candle is as far from f64 there.
    Rounding,
}

impl LayerRow {
    /// The largest difference of any engine.
    pub fn worst(&self) -> f64 {
        largest(self.differences.values(), |d| d.max_rel)
    }
}

fn largest<'a>(
    differences: impl Iterator<Item = &'a LayerDifference>,
    of: fn(&LayerDifference) -> f64,
) -> f64 {
    differences.map(of).fold(0.0, f64::max)
}

impl LayerReport {
    pub(super) fn new(
        file: String,
        options: &VerifyOptions,
        batches: Vec<usize>,
        engines: Vec<LayerEngine>,
        layers: Vec<LayerRow>,
    ) -> Self {
        // Only float32 files are compared by layer.
        let (tolerance, seed) = (options.tolerance(Dtype::F32), options.seed);
        let beyond = layers.iter().filter(|row| row.worst() > tolerance);
        // A network may have layers that round that much, and what is wrong may come after them.
        let first = beyond.map(|row| Culprit::new(row.clone(), &layers)).min_by_key(|culprit| culprit.origin);
        // candle where it runs, else the first engine that does: every other value is compared with one of it.
        let reference = layers.first().map_or("none".into(), |row| row.reference.clone());
        Self { file, reference, tolerance, batches, seed, engines, first, layers }
    }

    /// The values beyond the tolerance.
    fn beyond(&self) -> usize {
        self.layers.iter().filter(|row| row.worst() > self.tolerance).count()
    }

    /// The layer in which a difference beyond the tolerance comes into being that is known not to be rounding: a fault
    /// even where the outputs agree, as those of a network do that hardly looks at its images.
    pub fn fault(&self) -> Option<&Culprit> {
        self.first.as_ref().filter(|first| first.origin == Origin::Layer && first.row.noise.is_some())
    }

    /// The table: the `worst` values that differ most, or all in order.
    pub fn table(&self, worst: Option<usize>) -> String {
        let mut rows: Vec<&LayerRow> = self.layers.iter().collect();
        if let Some(worst) = worst {
            rows.sort_by(|a, b| b.worst().total_cmp(&a.worst()));
            rows.truncate(worst);
        }
        let compared: Vec<&str> = self
            .engines
            .iter()
            .map(|engine| engine.engine.as_str())
            .filter(|engine| self.layers.iter().any(|row| row.differences.contains_key(*engine)))
            .collect();
        let noisy = self.layers.iter().any(|row| row.noise.is_some());
        let mut header = vec!["layer", "op", "shape"];
        header.extend(&compared);
        header.extend(noisy.then_some("f64"));
        let mut lines = vec![header.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()];
        for row in rows {
            let mut line = vec![row.layer.clone(), row.op.clone(), shape(&row.shape)];
            line.extend(
                compared.iter().map(|&engine| number(row.differences.get(engine).map(|d| d.max_rel))),
            );
            line.extend(noisy.then(|| number(row.noise)));
            lines.push(line);
        }
        aligned(&lines)
    }
}

impl Culprit {
    /// How many times the largest input's difference a layer's own must be to have come into being there.
    const SUDDEN: f64 = 10.0;

    fn new(row: LayerRow, layers: &[LayerRow]) -> Self {
        let before = |name: &String| match layers.iter().find(|row| row.value == *name) {
            Some(input) => (input.layer.clone(), input.differences.clone()),
            None => (name.clone(), BTreeMap::new()),
        };
        let inputs_differences: Vec<_> = row.inputs.iter().map(before).collect();
        // Relative alone would blame what clips large values to small ones; absolute alone, what scales values up.
        let measures: [fn(&LayerDifference) -> f64; 2] = [|d| d.max_abs, |d| d.max_rel];
        let sudden = measures.into_iter().all(|of| {
            let inputs = inputs_differences.iter().flat_map(|(_, differences)| differences.values());
            largest(row.differences.values(), of) > Self::SUDDEN * largest(inputs, of)
        });
        let origin = match row.noise {
            Some(noise) if row.worst() <= ROUNDING * noise => Origin::Rounding,
            _ if sudden => Origin::Layer,
            _ => Origin::Inputs,
        };
        Self { row, inputs_differences, origin }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = &self.row;
        let attributes =
            if row.attributes.is_empty() { String::new() } else { format!(" ({})", row.attributes) };
        write!(
            f,
            "`{}`, {}{attributes}, {}: {}",
            row.layer,
            row.op,
            shape(&row.shape),
            list(&row.differences)
        )?;
        if let Some(noise) = row.noise {
            write!(f, "; candle against f64 {noise:.2e}")?;
        }
        for (name, differences) in &self.inputs_differences {
            let text = if differences.is_empty() {
                "not compared: the images, or in one engine alone".into()
            } else {
                list(differences)
            };
            write!(f, "\n  its input `{name}`: {text}")?;
        }
        f.write_str(match self.origin {
            Origin::Rounding => "\nRounding alone does that: candle itself is as far from f64 in this layer.",
            Origin::Layer => "\nIts inputs agree far better, so the difference comes into being in this layer.",
            Origin::Inputs => {
                "\nIt came in with the inputs, whose own difference explains it: it has grown from layer to layer."
            }
        })
    }
}

impl fmt::Display for LayerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (engine, problem) in self.engines.iter().filter_map(|e| Some((&e.engine, e.problem.as_ref()?))) {
            writeln!(f, "{engine}: {problem}")?;
        }
        let compared = self.layers.iter().any(|row| !row.differences.is_empty());
        match &self.first {
            Some(first) => {
                let (beyond, all, tolerance) = (self.beyond(), self.layers.len(), self.tolerance);
                let differ = if beyond == 1 { "differs" } else { "differ" };
                let which = if first.origin == Origin::Layer { "It begins in" } else { "The first is" };
                write!(f, "{beyond} of {all} layers {differ} by more than {tolerance:.0e}. {which} {first}")
            }
            None if !compared => write!(f, "Nothing was compared: a second engine is needed."),
            None => write!(
                f,
                "All {} layers agree within {:.0e} of their largest magnitude in {}; where outputs differ all the same, \
                 an engine's fusing of layers does it, which this comparison keeps it from.",
                self.layers.len(),
                self.tolerance,
                self.reference
            ),
        }
    }
}

fn list(differences: &Differences) -> String {
    let each = differences.iter().map(|(engine, d)| format!("{engine} {}", number(Some(d.max_rel))));
    each.collect::<Vec<_>>().join(", ")
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| if value == 0.0 { "0".into() } else { format!("{value:.2e}") })
}

fn shape(dims: &[usize]) -> String {
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// Columns, the first two to the left, the rest to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).map(width).collect();
    let line = |line: &Vec<String>| {
        let cell = |(i, (cell, &width)): (usize, (&String, &usize))| match i {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        };
        line.iter().zip(&widths).enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: &str, inputs: &[&str], max_abs: f64, max_rel: f64, noise: Option<f64>) -> LayerRow {
        LayerRow {
            layer: format!("layer of {value}"),
            value: value.into(),
            op: "Conv".into(),
            attributes: "group=1".into(),
            shape: vec![1, 8, 4, 4],
            inputs: inputs.iter().map(|&name| name.into()).collect(),
            reference: "candle".into(),
            differences: [("tract".to_owned(), LayerDifference { max_abs, max_rel })].into(),
            noise,
        }
    }

    fn report(rows: Vec<LayerRow>) -> LayerReport {
        let engine = |name: &str| LayerEngine { engine: name.into(), problem: None, note: None };
        let engines = vec![engine("candle"), engine("tract")];
        LayerReport::new("m.onnx".into(), &VerifyOptions::default(), vec![1], engines, rows)
    }

    #[test]
    fn a_layer_is_blamed_only_for_what_its_inputs_do_not_explain() {
        let origin = |max_abs, max_rel, noise| {
            let rows =
                vec![row("a", &["images"], 1e-6, 1e-6, None), row("b", &["a"], max_abs, max_rel, noise)];
            report(rows).first.expect("b differs").origin
        };
        assert_eq!(origin(1e-3, 1e-3, None), Origin::Layer);
        assert_eq!(origin(1e-3, 1e-3, Some(1e-6)), Origin::Layer);
        assert_eq!(origin(1e-3, 1e-3, Some(5e-4)), Origin::Rounding);
        // What clips large values, and what scales all of them up.
        assert_eq!(origin(1e-6, 1e-3, None), Origin::Inputs);
        assert_eq!(origin(1e-3, 1.1e-5, None), Origin::Layer);
        assert_eq!(origin(5e-6, 1.1e-5, None), Origin::Inputs);
        assert_eq!(origin(f64::INFINITY, f64::INFINITY, Some(1e-3)), Origin::Layer);
    }

    #[test]
    fn what_rounds_or_grows_before_a_fault_does_not_hide_it() {
        let rows = vec![
            row("a", &["images"], 1e-6, 1e-6, Some(1e-6)),
            row("clipped", &["a"], 1e-6, 2e-5, Some(2e-5)),
            row("grown", &["clipped"], 1e-6, 3e-5, Some(1e-7)),
            row("broken", &["grown"], 1e-3, 1e-2, Some(1e-6)),
        ];
        let report = report(rows.clone());
        assert_eq!(report.fault().expect("a fault").row.value, "broken");
        assert!(report.to_string().starts_with("3 of 4 layers differ by more than 1e-5. It begins in"));
        let first = |rows: &[LayerRow]| self::report(rows.to_vec()).first;
        assert_eq!(first(&rows[..3]).expect("it has grown").row.value, "grown");
        assert_eq!(first(&rows[..2]).expect("it has rounded").row.value, "clipped");
    }

    #[test]
    fn the_first_is_told_with_its_inputs_and_the_table_has_the_worst() {
        let rows = vec![
            row("a", &["images"], 1e-6, 1e-6, None),
            row("b", &["a", "images"], 2e-3, 1e-3, None),
            row("c", &["b"], 1e-2, 2e-3, None),
        ];
        let report = report(rows);
        let text = report.to_string();
        let expected = "\
2 of 3 layers differ by more than 1e-5. It begins in `layer of b`, Conv (group=1), 1×8×4×4: tract 1.00e-3
  its input `layer of a`: tract 1.00e-6
  its input `images`: not compared: the images, or in one engine alone
Its inputs agree far better, so the difference comes into being in this layer.";
        assert_eq!(text, expected);
        let table = report.table(Some(1));
        assert_eq!(table, "layer       op      shape    tract\nlayer of c  Conv  1×8×4×4  2.00e-3");
        assert_eq!(report.table(None).lines().count(), 4);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["first"]["layer"], "layer of b");
        assert_eq!(json["first"]["origin"], "layer");
    }
}
