//! In which steps a graph is executed, and which values a training pass keeps for its way back.

use super::fuse::fused;
use crate::graph::{Graph, NodeId};

/// What a training pass keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Every layer's output: for those who want to look at them.
    #[default]
    Everything,
    /// What the gradients need. A batch normalisation is computed together with the residual and the activation behind
    /// it, so that nothing in between is ever written.
    Needed,
    /// As [`Self::Needed`], but within about √n parts of the network only what enters them: the rest is computed once
    /// more on the way back (Chen et al. 2016, "Training deep nets with sublinear memory cost", section 3). Gradients
    /// are the same to the bit, in less memory and about a third more time.
    Checkpoints,
}

/// What is executed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// One layer.
    Layer(NodeId),
    /// A batch normalisation with what comes behind it.
    Norm(NormStep),
    /// A batch normalisation with the activation behind it, of which only the mean over pixels is written.
    Squeeze(Squeeze),
    /// The product of that activation with a gate.
    Excite(Excite),
}

/// activation(batch_norm(x) + residual).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NormStep {
    pub batch_norm: NodeId,
    /// What is normalised.
    pub input: NodeId,
    pub residual: Option<NodeId>,
    pub activation: Option<NodeId>,
    /// The layer whose output the step gives.
    pub last: NodeId,
}

/// global_avg_pool(activation(batch_norm(x))), the beginning of a squeeze-and-excitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Squeeze {
    /// With an activation and no residual.
    pub norm: NormStep,
    pub pool: NodeId,
}

/// activation(batch_norm(x)) · gate, its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Excite {
    pub norm: NormStep,
    pub gate: NodeId,
    pub product: NodeId,
}

impl Step {
    /// The layer whose output the step gives.
    pub(super) fn output(&self) -> NodeId {
        match self {
            Self::Layer(id) => *id,
            Self::Norm(step) => step.last,
            Self::Squeeze(step) => step.pool,
            Self::Excite(step) => step.product,
        }
    }

    /// The layers whose outputs it takes.
    pub(super) fn inputs(&self, graph: &Graph) -> Vec<NodeId> {
        match self {
            Self::Layer(id) => graph.node(*id).inputs.clone(),
            Self::Norm(step) => std::iter::once(step.input).chain(step.residual).collect(),
            Self::Squeeze(step) => vec![step.norm.input],
            Self::Excite(step) => vec![step.norm.input, step.gate],
        }
    }

    /// The layer whose parameters it uses.
    pub(super) fn parameters_of(&self) -> NodeId {
        match self {
            Self::Layer(id) => *id,
            Self::Norm(step) => step.batch_norm,
            Self::Squeeze(step) => step.norm.batch_norm,
            Self::Excite(step) => step.product,
        }
    }
}

/// A graph's steps in order, in parts of which only the inputs are kept.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    /// Where each part ends, as a number of steps; the last is all of them. One part where nothing is computed twice.
    pub parts: Vec<usize>,
}

impl Plan {
    /// For a GPU, or for the CPU, which computes what is fused in parts all the same and gains nothing where values would
    /// have to be computed again.
    pub(super) fn new(graph: &Graph, keep: Keep, on_gpu: bool) -> Self {
        let steps = match keep {
            Keep::Everything => graph.iter().map(|(id, _)| Step::Layer(id)).collect(),
            Keep::Needed | Keep::Checkpoints => fused(graph, on_gpu),
        };
        let parts = match keep {
            Keep::Checkpoints => parts(graph, &steps),
            _ => vec![steps.len()],
        };
        Self { steps, parts }
    }

    /// The number of the step whose batch normalisation a step uses, where that is another's.
    pub(super) fn squeeze(&self, step: &Step) -> Option<usize> {
        let Step::Excite(excite) = step else { return None };
        self.steps
            .iter()
            .position(|step| matches!(step, Step::Squeeze(squeeze) if squeeze.norm == excite.norm))
    }

    /// For each layer, the last step that takes its output; the network's output is never done with.
    pub(super) fn last_uses(&self, graph: &Graph) -> Vec<usize> {
        let mut last = vec![0; graph.nodes().len()];
        for (i, step) in self.steps.iter().enumerate() {
            for input in step.inputs(graph) {
                last[input.index()] = i;
            }
        }
        last[graph.output().index()] = usize::MAX;
        last
    }
}

/// Parts of about equal memory that end where only one value is alive, such as between blocks: √n of n such places.
fn parts(graph: &Graph, steps: &[Step]) -> Vec<usize> {
    let whole = Plan { steps: steps.to_vec(), parts: vec![steps.len()] };
    let last = whole.last_uses(graph);
    let size = |step: &Step| graph.node(step.output()).shape.elements();
    let uses: Vec<usize> = steps.iter().map(|step| last[step.output().index()]).collect();
    // How many values are alive before each step: those of steps before it that it or a later one takes.
    let mut alive = vec![0i64; steps.len() + 1];
    for (i, &last) in uses.iter().enumerate().filter(|(i, last)| **last > *i) {
        alive[i + 1] += 1;
        if let Some(end) = alive.get_mut(last.saturating_add(1)) {
            *end -= 1;
        }
    }
    for i in 1..alive.len() {
        alive[i] += alive[i - 1];
    }
    let places: Vec<usize> = (1..steps.len()).filter(|&place| alive[place] == 1).collect();
    let total: usize = steps.iter().map(size).sum();
    let share = total as f64 / (places.len() as f64).sqrt().max(1.0);
    let (mut parts, mut start) = (vec![], 0);
    for end in places {
        let gathered: usize = steps[start..end].iter().map(size).sum();
        if gathered as f64 >= share {
            parts.push(end);
            start = end;
        }
    }
    parts.push(steps.len());
    parts
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::memory::peak_bytes;
    use super::*;
    use crate::GraphBuilder;
    use crate::graph::{Activation, BatchNorm, ConvSpec, Shape};

    /// `blocks` residual blocks, the first with a normalised shortcut, as in a ResNet.
    pub(in super::super) fn residual(blocks: usize) -> Graph {
        let mut g = GraphBuilder::new("residual", Shape::map(3, 8, 8));
        let mut x = g.input();
        for block in 0..blocks {
            let name = |layer: &str| format!("{block}.{layer}");
            let y = g.conv2d(&name("conv1"), x, ConvSpec::new(8, 3).padding(1)).unwrap();
            let y = g.batch_norm(&name("bn1"), y, BatchNorm::default()).unwrap();
            let y = g.activation(&name("relu1"), y, Activation::Relu).unwrap();
            let y = g.conv2d(&name("conv2"), y, ConvSpec::new(8, 3).padding(1)).unwrap();
            let y = g.batch_norm(&name("bn2"), y, BatchNorm::default()).unwrap();
            if block == 0 {
                let shortcut = g.conv2d("shortcut", x, ConvSpec::new(8, 1)).unwrap();
                x = g.batch_norm("shortcut_bn", shortcut, BatchNorm::default()).unwrap();
            }
            x = g.sum(&name("add"), y, x).unwrap();
            x = g.activation(&name("relu2"), x, Activation::Relu).unwrap();
        }
        g.finish(x).unwrap()
    }

    #[test]
    fn checkpoints_take_less_memory_the_deeper_a_network_is() {
        let bytes = |blocks, keep| {
            let graph = residual(blocks);
            peak_bytes(&Plan::new(&graph, keep, true), &graph, 2) as f64
        };
        for (blocks, least) in [(4, 1.2), (16, 2.0), (64, 4.0)] {
            let saved = bytes(blocks, Keep::Needed) / bytes(blocks, Keep::Checkpoints);
            assert!(saved > least, "{blocks} blocks: {saved:.2}");
            assert!(bytes(blocks, Keep::Everything) > bytes(blocks, Keep::Needed));
        }
    }
}
