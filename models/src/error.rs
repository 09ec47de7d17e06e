//! What can go wrong between a network's name and its graph.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No network has this name.
    #[error("no network is called `{name}`; did you mean {}?", alternatives(nearest))]
    UnknownNetwork {
        /// What was asked for.
        name: String,
        /// The nearest names, best first.
        nearest: Vec<&'static str>,
    },

    /// An option that this network cannot take.
    #[error("network `{network}`: {option} {problem}")]
    Option {
        /// The network.
        network: String,
        /// The option.
        option: &'static str,
        /// What is wrong with its value.
        problem: String,
    },

    /// The layers do not fit together, as where an image is too small for them.
    #[error("network `{network}` for {width}×{height} images (width×height): {source}")]
    Graph {
        /// The network.
        network: String,
        /// Columns of the input.
        width: usize,
        /// Rows of the input.
        height: usize,
        /// The layer and the shapes.
        source: Box<tallow_builder::Error>,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The result of what runs inside a family's construction; boxed, as it passes through every layer.
pub(crate) type Built<T> = std::result::Result<T, Box<tallow_builder::Error>>;

fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
