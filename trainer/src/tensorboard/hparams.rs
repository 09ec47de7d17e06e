//! A run's settings as hyperparameters.

use std::collections::BTreeMap;

use tallow_tensorflow::event::hparams::{Metric, Value};

use crate::config::Config;

/// Settings that do not change what a network learns.
const IDLE: [&str; 5] = ["tensorboard", "diagnose", "workers", "checkpoint_minutes", "strict"];

/// Every setting by its place in the file, such as `optimizer.momentum`.
pub(super) fn of(config: &Config) -> BTreeMap<String, Value> {
    let mut table = toml::Table::try_from(config).expect("every setting is plain data that TOML can hold");
    IDLE.iter().for_each(|name| drop(table.remove(*name)));
    let mut found = BTreeMap::new();
    collect("", table, &mut found);
    found
}

fn collect(prefix: &str, table: toml::Table, found: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let value = match value {
            toml::Value::Table(table) => {
                collect(&name, table, found);
                continue;
            }
            toml::Value::Integer(number) => Value::Number(number as f64),
            toml::Value::Float(number) => Value::Number(number),
            toml::Value::Boolean(truth) => Value::Bool(truth),
            toml::Value::String(text) => Value::Text(text),
            other => Value::Text(other.to_string()),
        };
        found.insert(name, value);
    }
}

/// The scalars that tell how good a run is: the best validation so far, which is what is exported. They are the run's
/// own, because TensorBoard does not find those of folders in it where the run itself is its `--logdir`.
pub(super) fn metrics() -> Vec<Metric> {
    let metric = |(tag, name): &(&str, &str)| Metric {
        group: String::new(),
        tag: (*tag).into(),
        display_name: (*name).into(),
    };
    BEST.iter().map(metric).collect()
}

/// Tag and name of each of [`metrics`].
pub(super) const BEST: [(&str, &str); 4] = [
    ("best/top1", "best validation top-1"),
    ("best/top5", "its top-5"),
    ("best/loss", "its loss"),
    ("best/epoch", "its epoch"),
];
