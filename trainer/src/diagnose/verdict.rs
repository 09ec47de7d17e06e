//! From the numbers of a step to what a reader should do.

use std::fmt;

use serde::Serialize;

use super::{GradientFlow, LayerFlow};

/// A relative gradient at the input that is so much smaller than at the output has vanished; the inverse has exploded.
const RATIO: f64 = 1e-3;
/// A step at any sensible rate does nothing for a weight whose gradient is this share of it.
const TINY: f64 = 1e-7;
/// A gradient so many times its weight: at a rate of 0.1 a step replaces the weight.
const HUGE: f64 = 10.0;
/// A typical layer whose step is more than this share of its weights loses what it has learned within ten steps.
const LARGE_STEP: f64 = 0.1;
/// A step of this share of its weights replaces any one layer, however soundly the others learn.
const REPLACED: f64 = 1.0;
/// A typical layer would need a million such steps, at the full learning rate, to move as far as its weights are long.
const SMALL_STEP: f64 = 1e-6;
/// From this share of dead units or saturated values on, a layer hardly passes anything.
const MOST: f64 = 0.5;

/// Everything that is wrong with the flow of gradients or the size of the steps; nothing if it is healthy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Each thing that is wrong.
    pub findings: Vec<Finding>,
    /// Relative gradient of the first layers over that of the last.
    pub ratio: f64,
    /// A typical layer's update over its weights.
    pub update: f64,
    /// Layers.
    pub depth: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Gradients shrink on the way from the output to the input, or are tiny everywhere.
    Vanishing,
    /// Gradients grow on the way from the output to the input, or are huge everywhere.
    Exploding,
    /// Steps change a typical layer's weights, or replace one layer's, so much that what was learned is lost.
    LargeSteps {
        /// How many layers have large steps.
        layers: usize,
        /// The worst one.
        worst: String,
        /// Its update over its weights.
        ratio: f64,
    },
    /// Steps are so small, even at the schedule's full learning rate, that nothing is learned.
    SmallSteps,
    /// A gradient, a weight, an update or an activation is no finite number.
    NotFinite {
        /// The first layer with one.
        layer: String,
        /// Whether it is the update alone: the rate is too high for a gradient that is sound.
        update: bool,
    },
    /// Layers most of whose units give 0 for every image.
    Dead {
        /// How many layers.
        layers: usize,
        /// The worst one.
        worst: String,
        /// Its share of dead units.
        share: f64,
    },
    /// Layers most of whose values are at the limits of the nonlinearity.
    Saturated {
        /// How many layers.
        layers: usize,
        /// The worst one.
        worst: String,
        /// Its share of saturated values.
        share: f64,
    },
}

impl Verdict {
    pub(super) fn of(flow: &GradientFlow) -> Self {
        let layers = &flow.layers;
        let mut findings = vec![];
        let sound = |layer: &LayerFlow| {
            layer.gradient_norm.is_finite()
                && layer.weight_norm.is_finite()
                && layer.activation.variance.is_finite()
        };
        let broken = layers.iter().find(|layer| !sound(layer));
        if let Some(layer) = broken.or(layers.iter().find(|layer| !layer.update_ratio.is_finite())) {
            findings.push(Finding::NotFinite { layer: layer.layer.clone(), update: broken.is_none() });
        }
        let relative: Vec<f64> = layers.iter().map(LayerFlow::relative_gradient).collect();
        let end = (relative.len() / 4).max(1).min(relative.len());
        let (first, last) = (median(&relative[..end]), median(&relative[relative.len() - end..]));
        let (ratio, typical) = (if last > 0.0 { first / last } else { f64::NAN }, median(&relative));
        if ratio < RATIO || typical < TINY {
            findings.push(Finding::Vanishing);
        }
        if ratio > 1.0 / RATIO || typical > HUGE {
            findings.push(Finding::Exploding);
        }
        // A weight of zeros has no size to compare a step with.
        let moved: Vec<&LayerFlow> = layers.iter().filter(|layer| layer.weight_norm > 0.0).collect();
        let update = median(&moved.iter().map(|layer| layer.update_ratio).collect::<Vec<_>>());
        findings.extend(step_size(&moved, update, flow.rate_share));
        let share = |find: &dyn Fn(&LayerFlow) -> Option<f64>| {
            let shares = layers.iter().filter_map(|layer| Some((layer, find(layer)?)));
            let bad: Vec<_> = shares.filter(|(_, share)| *share > MOST).collect();
            let worst = bad.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
            Some((bad.len(), worst.0.layer.clone(), worst.1))
        };
        if let Some((layers, worst, share)) = share(&|layer| layer.activation.dead) {
            findings.push(Finding::Dead { layers, worst, share });
        }
        if let Some((layers, worst, share)) = share(&|layer| layer.activation.saturated) {
            findings.push(Finding::Saturated { layers, worst, share });
        }
        Self { findings, ratio, update, depth: layers.len() }
    }

    /// Whether nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        self.findings.is_empty()
    }

    /// By what a gradient is multiplied from a layer to the one before it, on average.
    pub fn factor(&self) -> f64 {
        self.ratio.powf(1.0 / (self.depth as f64 * 0.75).max(1.0))
    }

    fn describe(&self, finding: &Finding) -> String {
        let way = |ratio: f64| {
            format!(
                "relative to the weights, the first layers' gradient is {} times the last layers', a factor of {:.2} \
                 a layer",
                number(ratio),
                self.factor()
            )
        };
        match finding {
            Finding::Vanishing if self.ratio < RATIO => format!(
                "vanishing gradients: {}, so the first layers hardly learn. What helps: ReLU instead of sigmoid or \
                 tanh, He or Xavier initialisation, batch normalisation, skip connections.",
                way(self.ratio)
            ),
            Finding::Vanishing => "vanishing gradients: every layer's gradient is less than a ten-millionth of its \
                                   weights, so nothing learns. What helps: He or Xavier initialisation, batch \
                                   normalisation."
                .into(),
            Finding::Exploding if self.ratio > 1.0 / RATIO => format!(
                "exploding gradients: {}. What helps: He or Xavier initialisation, batch normalisation, a lower \
                 learning rate, --clip-norm 1.",
                way(self.ratio)
            ),
            Finding::Exploding => "exploding gradients: a typical layer's gradient is more than ten times its weights, \
                                   so that a step throws them away. What helps: He or Xavier initialisation, batch \
                                   normalisation, a lower learning rate, --clip-norm 1."
                .into(),
            Finding::LargeSteps { layers, worst, ratio } => format!(
                "steps too large: in {}, most of all in `{worst}` ({} times its weights), a single step changes more \
                 than a tenth of the weights, where a thousandth is usual, so what was learned is lost. What helps: a \
                 lower learning rate, a longer warm-up, --clip-norm 1.",
                plural(*layers),
                number(*ratio)
            ),
            Finding::SmallSteps => format!(
                "steps too small: a typical layer's step is {} of its weights, where a thousandth is usual, so nothing \
                 is learned. What helps: a higher learning rate, --clip-norm higher or left out.",
                number(self.update)
            ),
            Finding::NotFinite { layer, update: true } => format!(
                "no longer finite: the step of layer `{layer}` is infinite, though its gradient is not. What helps: a \
                 lower learning rate."
            ),
            Finding::NotFinite { layer, update: false } => format!(
                "no longer finite: layer `{layer}` has an infinity or NaN. What helps: a lower learning rate, a smaller \
                 initialisation, --clip-norm 1."
            ),
            Finding::Dead { layers, worst, share } => format!(
                "dead units: in {}, most of all in `{worst}` ({:.0} %), most units give 0 for every image and get no \
                 gradient. What helps: a lower learning rate, He initialisation, batch normalisation, leaky ReLU.",
                plural(*layers),
                share * 100.0
            ),
            Finding::Saturated { layers, worst, share } => format!(
                "saturated units: in {}, most of all in `{worst}` ({:.0} %), most values are at the limits of the \
                 nonlinearity, where its slope is nearly 0. What helps: a smaller initialisation (Xavier), batch \
                 normalisation, ReLU.",
                plural(*layers),
                share * 100.0
            ),
        }
    }

    /// A word or two for each finding, such as `vanishing`.
    pub fn words(&self) -> String {
        let word = |finding: &Finding| match finding {
            Finding::Vanishing => "vanishing",
            Finding::Exploding => "exploding",
            Finding::LargeSteps { .. } => "steps too large",
            Finding::SmallSteps => "steps too small",
            Finding::NotFinite { .. } => "not finite",
            Finding::Dead { .. } => "dead units",
            Finding::Saturated { .. } => "saturated",
        };
        if self.is_healthy() {
            return "healthy".into();
        }
        self.findings.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

/// A line for each finding.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_healthy() {
            return write!(
                f,
                "healthy: gradients keep their size over {} layers (first over last: {}, a factor of {:.2} a layer), a \
                 typical step is {} of the weights.",
                self.depth,
                number(self.ratio),
                self.factor(),
                number(self.update)
            );
        }
        let lines: Vec<String> = self.findings.iter().map(|finding| self.describe(finding)).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// What is wrong with steps whose typical size is `update`. During a warm-up, and at the end of a schedule, small ones
/// are meant to be: they are judged as they would be at the full rate, large ones as they are.
fn step_size(layers: &[&LayerFlow], update: f64, rate_share: f64) -> Option<Finding> {
    let worst = layers.iter().max_by(|a, b| a.update_ratio.total_cmp(&b.update_ratio))?;
    if update > LARGE_STEP || worst.update_ratio > REPLACED {
        let large = layers.iter().filter(|layer| layer.update_ratio > LARGE_STEP).count();
        let (worst, ratio) = (worst.layer.clone(), worst.update_ratio);
        return Some(Finding::LargeSteps { layers: large, worst, ratio });
    }
    (update < SMALL_STEP * rate_share).then_some(Finding::SmallSteps)
}

fn plural(layers: usize) -> String {
    if layers == 1 { "1 layer".into() } else { format!("{layers} layers") }
}

/// Two digits, whatever the size.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 || (0.01..1000.0).contains(&value.abs()) {
        format!("{value:.2}")
    } else {
        format!("{value:.1e}")
    }
}

/// The middle value; NaN where there is none or one is NaN.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.last() {
        Some(last) if !last.is_nan() => (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0,
        _ => f64::NAN,
    }
}
