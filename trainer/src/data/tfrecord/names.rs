//! What records call their classes: where nothing else names them, and whether it contradicts what does.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use tallow_tensorflow::example::Example;

use super::fields::Fields;
use super::index::Index;
use super::look::{look, some};
use super::meaning::BACKGROUND;
use crate::error::{Error, Result};

/// More classes than this are a misunderstanding.
const MOST_CLASSES: i64 = 1 << 20;

/// What a record calls its class, the best name first.
pub fn of<'a>(example: &Example<'a>, fields: &Fields) -> Vec<&'a str> {
    let names = fields.names.iter().filter_map(|key| example.text(key));
    names.filter(|name| !name.is_empty()).collect()
}

/// What is wrong where a record calls its class as another class is called. Names that no class has tell nothing: a
/// list of classes may be in other words than the records.
pub fn exchanged(names: &[&str], class: usize, classes: &[String]) -> Option<String> {
    if names.contains(&classes[class].as_str()) {
        return None;
    }
    let other = names.iter().find(|&&name| classes.iter().any(|class| class == name))?;
    Some(format!("its class is called {other}, not {}", classes[class]))
}

/// Compares what some records call their classes with the names in the file `path`.
///
/// # Errors
/// Where the file calls a class as the records call another one.
pub fn refuse_exchanged(
    index: &Index,
    fields: &Fields,
    label_offset: u32,
    classes: &[String],
    path: &Path,
) -> Result<()> {
    refuse_first(index, fields, |names, label| {
        let class = place(label, label_offset).filter(|&class| class < classes.len())?;
        let wrong = exchanged(names, class, classes)?;
        Some(format!("{wrong}, as {} says: put its lines in the order of the labels", path.display()))
    })
}

/// Compares what some records call their classes with the names of classes that were trained on.
///
/// # Errors
/// Where a record calls its class otherwise.
pub fn refuse_others(index: &Index, fields: &Fields, label_offset: u32, classes: &[String]) -> Result<()> {
    refuse_first(index, fields, |names, label| {
        let called =
            |offset: u32| place(label, offset).and_then(|class| classes.get(class)).map(String::as_str);
        let expected = called(label_offset).filter(|expected| !names.contains(expected))?;
        let other = 1_u32.saturating_sub(label_offset);
        let fits = called(other).is_some_and(|expected| names.contains(&expected));
        let remedy = if fits { format!(": say --label-offset {other}") } else { String::new() };
        Some(format!("its class is called {}, not {expected}{remedy}", names.join(", ")))
    })
}

/// The class of a label.
fn place(label: i64, label_offset: u32) -> Option<usize> {
    label.checked_sub(i64::from(label_offset)).and_then(|class| usize::try_from(class).ok())
}

/// Refuses the first of some records in whose names and label `wrong` finds something.
fn refuse_first(
    index: &Index,
    fields: &Fields,
    wrong: impl Fn(&[&str], i64) -> Option<String>,
) -> Result<()> {
    if fields.names.is_empty() {
        return Ok(());
    }
    let mut buffer = vec![];
    // A record whose start has no names is read to its end, once, and tells nothing then.
    let wanted = |example: &Example<'_>| {
        let (label, names) = (example.int(&fields.label)?, of(example, fields));
        (!names.is_empty()).then(|| wrong(&names, label))
    };
    for record in some(index) {
        if let Some(Some(reason)) = look(index, record, &mut buffer, wanted)? {
            return Err(Error::Image { origin: index.origin(record), reason });
        }
    }
    Ok(())
}

type Named = BTreeMap<i64, Option<String>>;

/// The classes that the records themselves name.
pub fn in_records(index: &Index, fields: &Fields, label_offset: u32) -> Result<Vec<String>> {
    let wanted = |example: &Example<'_>| {
        let label = example.int(&fields.label)?;
        let name = fields.names.iter().find_map(|key| example.text(key)).filter(|name| !name.is_empty());
        Some((label, name.map(str::to_owned)))
    };
    let found = (0..index.len())
        .into_par_iter()
        .try_fold(
            || (Named::new(), vec![]),
            |(mut named, mut buffer), record| {
                if let Some((label, name)) = look(index, record, &mut buffer, wanted)? {
                    note(&mut named, label, name)?;
                }
                Ok((named, buffer))
            },
        )
        .map(|part: Result<(Named, Vec<u8>)>| part.map(|(named, _)| named))
        .try_reduce(Named::new, |mut one, other| {
            other.into_iter().try_for_each(|(label, name)| note(&mut one, label, name))?;
            Ok(one)
        })?;
    let first = i64::from(label_offset);
    let last = found.keys().next_back().copied().unwrap_or(first);
    if last - first >= MOST_CLASSES {
        return Err(Error::Unusable {
            reason: format!("a record has the label {last}: name the classes by --labels"),
        });
    }
    let name = |label: i64| match found.get(&label) {
        Some(Some(name)) => name.clone(),
        None if label == 0 => BACKGROUND.to_owned(),
        _ => format!("class {label}"),
    };
    Ok((first..=last).map(name).collect())
}

fn note(named: &mut Named, label: i64, name: Option<String>) -> Result<()> {
    let known = named.entry(label).or_default();
    match (&known, name) {
        (Some(one), Some(other)) if *one != other => {
            let reason = format!("label {label} is named {one} and {other}: name the classes by --labels");
            return Err(Error::Unusable { reason });
        }
        (None, Some(name)) => *known = Some(name),
        _ => {}
    }
    Ok(())
}
