//! The classes and the layer that a command line names.

use anyhow::Result;
use tallow_builder::cam::last_feature_map_of;
use tallow_builder::graph::Shape;
use tallow_builder::{Graph, NodeId};
use tallow_models::edit_distance;

use crate::failure::usage;
use crate::output::note;

/// How many labels are proposed for one that is not known.
const PROPOSED: usize = 4;

/// The classes of names or numbers.
///
/// # Errors
/// For a name that no class has, or several.
pub fn classes(labels: &[String], names: &[String]) -> Result<Vec<usize>> {
    names.iter().map(|name| class(labels, name)).collect()
}

fn class(labels: &[String], name: &str) -> Result<usize> {
    let named: Vec<usize> = (0..labels.len()).filter(|&class| labels[class] == name).collect();
    match (&named[..], name.parse()) {
        (&[class], _) => Ok(class),
        ([], Ok(class)) if class < labels.len() => Ok(class),
        ([], _) => Err(usage(format!(
            "no class is called `{name}`; did you mean {}? Name a label, or a number below {}",
            near(labels, name).join(", "),
            labels.len()
        ))),
        (several, _) => {
            let numbers: Vec<String> = several.iter().map(usize::to_string).collect();
            Err(usage(format!(
                "{} classes are called `{name}`: choose one by its number, {}",
                numbers.len(),
                numbers.join(" or ")
            )))
        }
    }
}

/// The labels that have `name` in them, or else those that the fewest edits make of it.
fn near(labels: &[String], name: &str) -> Vec<String> {
    let name = name.to_lowercase();
    let distance = |label: &String| {
        let label = label.to_lowercase();
        (!label.contains(&name), edit_distance(&name, &label))
    };
    let mut ranked: Vec<&String> = labels.iter().collect();
    ranked.sort_by_cached_key(|&label| distance(label));
    let holding = ranked.iter().take_while(|&&label| !distance(label).0).count();
    // Labels that are merely spelled alike are noise beside those that have the word.
    let shown = if holding > 0 { holding } else { PROPOSED - 1 };
    ranked.into_iter().take(shown.min(PROPOSED)).map(|label| format!("`{label}`")).collect()
}

/// The layer called `name`, or the last of the stage called so that gives a feature map.
///
/// # Errors
/// Where there is none.
pub fn layer(graph: &Graph, name: &str) -> Result<NodeId> {
    let Some(layer) = graph.find(name) else {
        let last = last_feature_map_of(graph, name).ok_or_else(|| {
            usage(format!(
                "{} has no layer or stage `{name}` that gives a feature map: `tallow summary` lists its layers",
                graph.name()
            ))
        })?;
        note!("--layer {name} is a stage: its last feature map is that of {}", graph.node(last).name);
        return Ok(last);
    };
    match graph.node(layer).shape {
        Shape::Map { .. } => Ok(layer),
        Shape::Vector { .. } => Err(usage(format!(
            "the layer `{name}` gives no feature map: name one whose output has rows and columns; `tallow summary` lists them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(labels: &[&str], name: &str) -> String {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        class(&labels, name).unwrap_err().to_string()
    }

    #[test]
    fn a_class_that_is_not_there_gets_the_labels_that_have_its_name() {
        let labels = ["crate", "crane (bird)", "frame", "Crane (machine)"];
        let text = refused(&labels, "crane");
        assert!(text.contains("did you mean `crane (bird)`, `Crane (machine)`? "), "{text}");
        let text = refused(&labels, "fraem");
        assert!(text.contains("did you mean `frame`, `crate`, ") && text.contains("below 4"), "{text}");
    }

    #[test]
    fn a_name_of_several_classes_is_not_taken_for_the_first() {
        let text = refused(&["maillot", "tank suit", "maillot"], "maillot");
        assert_eq!(text, "2 classes are called `maillot`: choose one by its number, 0 or 2");
    }
}
