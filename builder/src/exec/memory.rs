//! The memory of a training pass, known before it runs: its steps are gone through forwards and backwards, with sizes in
//! the place of tensors.

use super::plan::{Plan, Squeeze, Step};
use crate::graph::{Graph, NodeId, Op};

/// What is alive at a time.
struct Live<'a> {
    graph: &'a Graph,
    /// Bytes of an element.
    element: usize,
    values: Vec<bool>,
    /// Of values; a residual's gradient may be another's, and is counted all the same.
    gradients: Vec<bool>,
    now: usize,
    peak: usize,
}

impl Live<'_> {
    fn bytes(&self, id: NodeId) -> usize {
        self.graph.node(id).shape.elements() * self.element
    }

    fn take(&mut self, bytes: usize) {
        self.now += bytes;
        self.peak = self.peak.max(self.now);
    }

    fn compute(&mut self, id: NodeId) {
        if !std::mem::replace(&mut self.values[id.index()], true) {
            self.take(self.bytes(id));
        }
    }

    fn forget(&mut self, id: NodeId) {
        if std::mem::take(&mut self.values[id.index()]) {
            self.now -= self.bytes(id);
        }
    }

    /// The gradient that a step makes for one of its inputs, which may have one already: then both, and their sum, are
    /// alive for a moment.
    fn add_gradient(&mut self, id: NodeId) {
        if self.graph.node(id).op == Op::Input {
            return;
        }
        let bytes = self.bytes(id);
        if std::mem::replace(&mut self.gradients[id.index()], true) {
            self.take(2 * bytes);
            self.now -= 2 * bytes;
        } else {
            self.take(bytes);
        }
    }

    fn forget_gradient(&mut self, id: NodeId) {
        if std::mem::take(&mut self.gradients[id.index()]) {
            self.now -= self.bytes(id);
        }
    }
}

/// Bytes that a training pass over one image takes at its peak, where an element has `element` bytes. Gradients of
/// parameters and what kernels work with for a moment come on top.
pub(super) fn peak_bytes(plan: &Plan, graph: &Graph, element: usize) -> usize {
    let nodes = graph.nodes().len();
    let mut live =
        Live { graph, element, values: vec![false; nodes], gradients: vec![false; nodes], now: 0, peak: 0 };
    let last = plan.last_uses(graph);
    let mut start = 0;
    for &end in &plan.parts {
        let outputs = || plan.steps[start..end].iter().map(Step::output);
        outputs().for_each(|id| live.compute(id));
        if end < plan.steps.len() {
            let inner = outputs().filter(|id| graph.node(*id).op != Op::Input && last[id.index()] < end);
            inner.for_each(|id| live.forget(id));
        }
        start = end;
    }
    live.add_gradient(graph.output());
    let mut end = plan.steps.len();
    for part in (0..plan.parts.len()).rev() {
        let start = part.checked_sub(1).map_or(0, |before| plan.parts[before]);
        plan.steps[start..end].iter().for_each(|step| live.compute(step.output()));
        for step in plan.steps[start..end].iter().rev() {
            match step {
                // What reaches the product waits for the squeeze.
                Step::Excite(step) => live.add_gradient(step.gate),
                Step::Squeeze(step) => {
                    live.add_gradient(step.norm.input);
                    live.forget_gradient(excited(plan, step));
                }
                _ => step.inputs(graph).into_iter().for_each(|input| live.add_gradient(input)),
            }
            if !matches!(step, Step::Excite(_)) {
                live.forget_gradient(step.output());
            }
            live.forget(step.output());
        }
        end = start;
    }
    live.peak
}

/// The product that belongs to a squeeze.
fn excited(plan: &Plan, squeeze: &Squeeze) -> NodeId {
    let product = plan.steps.iter().find_map(|step| match step {
        Step::Excite(excite) if excite.norm == squeeze.norm => Some(excite.product),
        _ => None,
    });
    product.expect("both were made together")
}
