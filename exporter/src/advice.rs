//! What to do about weights of another network than the one they are for.

use tallow_builder::Graph;
use tallow_models::{Identity, Layout};

use crate::adopt::Head;

/// What to say of weights of the same network for so many classes.
pub(crate) fn other_classes(graph: &Graph, classes: usize) -> String {
    let own = graph.output_shape().elements();
    format!("its weights are for {classes} classes, not {own}: pass --classes {classes}")
}

/// What to do about weights that do not fit `graph`, by what they are found to be. A head that is drawn anew has
/// whatever classes it is to have, so that nothing is said of them then.
pub(crate) fn advice(graph: &Graph, found: Option<Identity>, head: Head) -> String {
    let Some(found) = found else {
        return "its weights are of no network that Tallow has, nor near one".into();
    };
    let Identity { network, tensors, named, alike, .. } = found;
    if !found.fits() {
        let by_name = match named - alike {
            0 => String::new(),
            more => format!(" and {more} more in name alone"),
        };
        return format!(
            "its weights are of no network that Tallow has; nearest is {network}, which {alike} of {tensors} tensors \
             fit{by_name}"
        );
    }
    let own = graph.output_shape().elements();
    let classes = found.classes.filter(|&classes| head == Head::Kept && classes != own);
    let change = std::iter::once(network).chain(found.timm.iter().copied());
    let change = change.filter_map(|name| Some((name, graph.name().strip_prefix(name)?)));
    // What was changed about a network follows its name: `_w2`, `_d1.5`, `_stages`.
    let same = change.map(|(name, change)| (name, change.trim_start_matches('_')));
    let mut same = same.filter(|(_, change)| {
        let number = change.get(1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        change.is_empty() || change.starts_with("stages") || change.starts_with(['w', 'd']) && number
    });
    match (same.next(), classes) {
        (Some((_, "")), Some(classes)) => other_classes(graph, classes),
        (Some((name, change)), classes) => {
            let flags =
                if change.starts_with("stages") { "the stages of one's own" } else { "--width and --depth" };
            let classes =
                classes.map(|classes| format!(", and pass --classes {classes}")).unwrap_or_default();
            format!("its weights are those of {name} as it is: leave out {flags}{classes}")
        }
        (None, _) => other_network(&found, head),
    }
}

/// Which network to name in place of another one.
fn other_network(found: &Identity, head: Head) -> String {
    let Identity { network, timm, layout, .. } = found;
    let (of, classes) = match found.classes.filter(|_| head == Head::Kept) {
        Some(classes) => (format!(", for {classes} classes"), format!(" --classes {classes}")),
        None => Default::default(),
    };
    let choice = match (timm.as_slice(), layout) {
        ([], _) => format!("{network}{classes}"),
        // timm's names are timm's alone.
        ([plain, tf], Layout::Timm) => {
            format!("{plain}{classes}, or {tf} if TensorFlow trained them, which the tensors do not tell")
        }
        ([plain], _) => format!(
            "{network}{classes}, or {plain} if they are timm's, whose preprocessing differs and whose tensors do not"
        ),
        ([plain, rest @ ..], _) => format!(
            "{network}{classes}, or, if they are timm's, {plain}, or {} if TensorFlow trained them: padding, eps and \
             preprocessing differ, which the tensors do not tell",
            rest.join(" or ")
        ),
    };
    format!("its weights are {network}'s{of}: pass --model {choice}")
}
