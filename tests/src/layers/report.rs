//! What a comparison of layers found, as a table for people and as JSON for machines.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

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
    /// The first value in the order of computation that some engine gives otherwise.
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
    /// The largest difference of each engine, relative to the reference's largest magnitude; infinite for another shape
    /// or numbers that are not finite.
    #[serde(serialize_with = "finite_or_null")]
    pub differences: BTreeMap<String, f64>,
    /// candle's distance to f64, relative in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
}

/// The first layer that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Culprit {
    /// The layer.
    #[serde(flatten)]
    pub row: LayerRow,
    /// The layers that it takes, with their own differences; the images have none.
    pub inputs_differences: Vec<(String, BTreeMap<String, f64>)>,
    /// Whether the difference comes into being in this layer: it is far larger than its inputs'.
    pub sudden: bool,
}

impl LayerRow {
    /// The largest difference of any engine.
    pub fn worst(&self) -> f64 {
        self.differences.values().copied().fold(0.0, f64::max)
    }
}

impl LayerReport {
    pub(super) fn new(
        file: String,
        options: &VerifyOptions,
        batches: Vec<usize>,
        engines: Vec<LayerEngine>,
        layers: Vec<LayerRow>,
    ) -> Self {
        let first = layers.iter().find(|row| row.worst() > options.tolerance);
        let first = first.map(|row| Culprit::new(row.clone(), &layers));
        // candle where it runs, else the first engine that does: every other value is compared with one of it.
        let reference = layers.first().map_or("none".into(), |row| row.reference.clone());
        let (tolerance, seed) = (options.tolerance, options.seed);
        Self { file, reference, tolerance, batches, seed, engines, first, layers }
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
            line.extend(compared.iter().map(|&engine| number(row.differences.get(engine).copied())));
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
        let before = |name: &String| {
            match layers.iter().find(|row| row.value == *name) {
                Some(input) => (input.layer.clone(), input.differences.clone()),
                None => (name.clone(), BTreeMap::new()),
            }
        };
        let inputs_differences: Vec<_> = row.inputs.iter().map(before).collect();
        let inputs = inputs_differences.iter().flat_map(|(_, differences)| differences.values());
        let sudden = row.worst() > Self::SUDDEN * inputs.copied().fold(0.0, f64::max);
        Self { row, inputs_differences, sudden }
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
                "the images, or only in one engine".into()
            } else {
                list(differences)
            };
            write!(f, "\n  its input `{name}`: {text}")?;
        }
        let verdict = if self.sudden {
            "The difference comes into being in this layer: its inputs agree far better."
        } else {
            "It came in with the inputs, which differ nearly as much: rounding that grows from layer to layer, and no \
             single layer."
        };
        write!(f, "\n{verdict}")
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
                write!(
                    f,
                    "The first of {} layers beyond {:.0e} is {first}",
                    self.layers.len(),
                    self.tolerance
                )
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

fn list(differences: &BTreeMap<String, f64>) -> String {
    let each = differences.iter().map(|(engine, d)| format!("{engine} {}", number(Some(*d))));
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

/// JSON has no infinity.
fn finite_or_null<S: serde::Serializer>(
    differences: &BTreeMap<String, f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(differences.iter().map(|(engine, d)| (engine, d.is_finite().then_some(d))))
}
