//! A run's settings as hyperparameters.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use tallow_tensorflow::event::hparams::{Metric, SESSION_START, Value, experiment, session_start};
use tallow_tensorflow::event::{EventReader, EventWriter, Summary, SummaryValue};
use tallow_tensorflow::{Error, Result};

use super::purge::event_files;
use crate::config::Config;

/// Settings that do not change what a network learns, or by rounding alone.
const IDLE: [&str; 6] = ["tensorboard", "diagnose", "workers", "checkpoint_minutes", "strict", "compute"];

/// Every setting by its place in the file, such as `optimizer.momentum`.
fn of(config: &Config) -> BTreeMap<String, Value> {
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

/// What a run that started at `seconds` since 1970 begins its own event file with.
pub(super) fn summary(config: &Config, seconds: f64) -> Vec<SummaryValue> {
    let values = of(config);
    vec![experiment(&values, &metrics()), session_start(&values, seconds)]
}

/// Whether the event files of `folder`, which must be sound, have the settings of a run. Where those have `changed`,
/// the ones that it goes on with are put in their place: of several in a run's files TensorBoard shows the first.
///
/// # Errors
/// Where a file cannot be read or written.
pub(super) fn keep(folder: &Path, config: &Config, changed: bool) -> Result<bool> {
    let mut found = false;
    for path in event_files(folder)? {
        let mut events = EventReader::open(&path)?.collect::<Result<Vec<_>>>()?;
        let starts = |summary: &Summary| summary.value.iter().any(|value| value.tag == SESSION_START);
        let Some(start) = events.iter_mut().find(|event| event.summary.as_ref().is_some_and(starts)) else {
            continue;
        };
        found = true;
        if !changed {
            continue;
        }
        start.summary = Some(Summary { value: summary(config, start.wall_time) });
        // Not a name that TensorBoard reads.
        let new = folder.join("hparams.new");
        let mut writer = EventWriter::new(&new, File::create(&new).map_err(Error::io(&new))?)?;
        // The writer has written the first one, the version, itself.
        events.iter().skip(1).try_for_each(|event| writer.write(event))?;
        writer.flush()?;
        std::fs::rename(&new, &path).map_err(Error::io(&path))?;
    }
    Ok(found)
}

/// The scalars that tell how good a run is: the best validation so far, which is what is exported. They are the run's
/// own, because TensorBoard does not find those of folders in it where the run itself is its `--logdir`.
fn metrics() -> Vec<Metric> {
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
