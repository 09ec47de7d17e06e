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

/// The scalars that tell how good a run is.
pub(super) fn metrics() -> Vec<Metric> {
    let metric = |group: &str, tag: &str, name: &str| Metric {
        group: group.into(),
        tag: tag.into(),
        display_name: name.into(),
    };
    vec![
        metric("validation", "epoch/top1", "validation top-1"),
        metric("validation", "epoch/top5", "validation top-5"),
        metric("validation", "epoch/loss", "validation loss"),
        metric("train", "epoch/top1", "training top-1"),
        metric("train", "epoch/loss", "training loss"),
    ]
}
