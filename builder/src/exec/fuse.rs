//! Which layers are executed together.

use super::plan::{Excite, NormStep, Squeeze, Step};
use crate::graph::{Graph, NodeId, Op};

/// A graph's steps: every batch normalisation together with the sum and the activation behind it, where nobody else
/// takes what is in between, and with `gates` also together with a squeeze-and-excitation.
pub(super) fn fused(graph: &Graph, gates: bool) -> Vec<Step> {
    let takers = takers(graph);
    // For each layer, the step that computes it together with others.
    let mut within: Vec<Option<Step>> = vec![None; graph.nodes().len()];
    for (id, node) in graph.iter().filter(|(_, node)| matches!(node.op, Op::BatchNorm(_))) {
        let mut step =
            NormStep { batch_norm: id, input: node.inputs[0], residual: None, activation: None, last: id };
        let mut members = vec![id];
        if let Some(sum) = only(&takers, id).filter(|&next| graph.node(next).op == Op::Add) {
            let other = graph.node(sum).inputs.iter().copied().find(|&input| input != id);
            // Of two normalisations that are added, the later one takes the sum: then the other is there.
            if let Some(residual) = other.filter(|other| other.index() < id.index()) {
                (step.residual, step.last) = (Some(residual), sum);
                members.push(sum);
            }
        }
        let activation = only(&takers, step.last);
        if let Some(next) = activation.filter(|&next| matches!(graph.node(next).op, Op::Activation(_))) {
            (step.activation, step.last) = (Some(next), next);
            members.push(next);
        }
        let mut whole = Step::Norm(step);
        if let Some((squeeze, excite)) = gate(graph, &takers, step).filter(|_| gates) {
            members.push(squeeze.pool);
            within[excite.product.index()] = Some(Step::Excite(excite));
            whole = Step::Squeeze(squeeze);
        }
        members.iter().for_each(|member| within[member.index()] = Some(whole.clone()));
    }
    let step = |(id, within): (NodeId, Option<Step>)| match within {
        Some(step) => (step.output() == id).then_some(step),
        None => Some(Step::Layer(id)),
    };
    graph.iter().map(|(id, _)| id).zip(within).filter_map(step).collect()
}

/// The squeeze-and-excitation of a normalised and activated map, where nobody else takes the map: its mean goes through
/// layers one after the other, and the product with what comes out of them is taken.
fn gate(graph: &Graph, takers: &[Vec<NodeId>], norm: NormStep) -> Option<(Squeeze, Excite)> {
    let NormStep { residual: None, activation: Some(_), last, .. } = norm else { return None };
    let [pool, product] = takers[last.index()][..] else { return None };
    let (Op::GlobalAvgPool, Op::Mul) = (&graph.node(pool).op, &graph.node(product).op) else { return None };
    let [map, gate] = graph.node(product).inputs[..] else { return None };
    let mut layer = gate;
    while layer != pool {
        let [before] = graph.node(layer).inputs[..] else { return None };
        only(takers, layer)?;
        layer = before;
    }
    only(takers, pool)?;
    (map == last).then_some((Squeeze { norm, pool }, Excite { norm, gate, product }))
}

/// For each layer, those that take its output; the network's output is taken by the caller, who is in nobody's list.
fn takers(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut takers = vec![vec![]; graph.nodes().len()];
    for (id, node) in graph.iter() {
        node.inputs.iter().for_each(|input| takers[input.index()].push(id));
    }
    takers[graph.output().index()].clear();
    takers
}

/// The one that takes a layer's output, where there is exactly one.
fn only(takers: &[Vec<NodeId>], id: NodeId) -> Option<NodeId> {
    match takers[id.index()][..] {
        [taker] => Some(taker),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::residual;
    use super::super::plan::{Keep, Plan};
    use super::*;
    use crate::GraphBuilder;
    use crate::graph::{Activation, BatchNorm, ConvSpec, Shape};

    fn names(graph: &Graph, plan: &Plan) -> Vec<String> {
        plan.steps.iter().map(|step| graph.node(step.output()).name.clone()).collect()
    }

    #[test]
    fn normalisations_take_what_is_behind_them() {
        let graph = residual(2);
        let plan = Plan::new(&graph, Keep::Needed, true);
        let expected = [
            "input", "0.conv1", "0.relu1", "0.conv2", "0.bn2", "shortcut", "0.relu2", "1.conv1", "1.relu1",
            "1.conv2", "1.relu2",
        ];
        assert_eq!(names(&graph, &plan), expected);
        let last = plan.steps.last().unwrap();
        let Step::Norm(NormStep { residual: Some(residual), activation: Some(_), .. }) = last else {
            panic!("{last:?}")
        };
        assert_eq!(graph.node(*residual).name, "0.relu2");
    }

    #[test]
    fn what_somebody_else_takes_is_not_fused() {
        let mut g = GraphBuilder::new("shared", Shape::map(3, 8, 8));
        let x = g.batch_norm("bn", g.input(), BatchNorm::default()).unwrap();
        let y = g.activation("relu", x, Activation::Relu).unwrap();
        let y = g.sum("add", y, x).unwrap();
        let graph = g.finish(y).unwrap();
        assert_eq!(names(&graph, &Plan::new(&graph, Keep::Needed, true)), ["input", "bn", "relu", "add"]);
    }

    #[test]
    fn twice_itself_is_no_residual() {
        let mut g = GraphBuilder::new("doubled", Shape::map(3, 8, 8));
        let x = g.batch_norm("bn", g.input(), BatchNorm::default()).unwrap();
        let y = g.sum("add", x, x).unwrap();
        let graph = g.finish(y).unwrap();
        assert_eq!(names(&graph, &Plan::new(&graph, Keep::Needed, true)), ["input", "bn", "add"]);
    }

    /// A gated map, whose activation also goes elsewhere if `shared`.
    fn gated(shared: bool) -> Graph {
        let mut g = GraphBuilder::new("gated", Shape::map(4, 8, 8));
        let x = g.conv2d("conv", g.input(), ConvSpec::new(4, 3).padding(1)).unwrap();
        let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
        let x = g.activation("act", x, Activation::Silu).unwrap();
        let s = g.global_avg_pool("squeeze", x).unwrap();
        let s = g.conv2d("fc", s, ConvSpec::new(4, 1)).unwrap();
        let s = g.activation("gate", s, Activation::SIGMOID).unwrap();
        let mut y = g.scale("scale", x, s).unwrap();
        if shared {
            y = g.sum("add", y, x).unwrap();
        }
        g.finish(y).unwrap()
    }

    #[test]
    fn a_gated_map_is_never_written_on_a_gpu() {
        let graph = gated(false);
        let plan = Plan::new(&graph, Keep::Needed, true);
        assert_eq!(names(&graph, &plan), ["input", "conv", "squeeze", "fc", "gate", "scale"]);
        assert_eq!(plan.squeeze(&plan.steps[5]), Some(2));
        let on_cpu = Plan::new(&graph, Keep::Needed, false);
        assert_eq!(names(&graph, &on_cpu), ["input", "conv", "act", "squeeze", "fc", "gate", "scale"]);
        let graph = gated(true);
        let plan = Plan::new(&graph, Keep::Needed, true);
        assert_eq!(names(&graph, &plan), ["input", "conv", "act", "squeeze", "fc", "gate", "scale", "add"]);
    }
}
