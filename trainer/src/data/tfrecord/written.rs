//! How many records each shard was written with: whole records that are gone leave no wrong sum behind, so only the
//! files of those who wrote the shards know.

use std::collections::BTreeMap;

use super::Located;
use super::info::{DatasetInfo, INFO_FILE};
use crate::data::prepare::Journal;

/// What is known of a shard.
pub struct Written {
    /// Records it was written with.
    pub records: usize,
    /// Who says so, and what to do if there are others.
    pub remedy: String,
}

/// The shards of which it is known, by file name. What is wrong with the files that tell it goes to `problems`.
pub fn written(located: &Located, problems: &mut Vec<String>) -> BTreeMap<String, Written> {
    match Journal::records(&located.folder) {
        Ok(None) => {}
        Ok(Some(records)) => {
            let remedy = ": run the same `tallow data prepare` again, or take another copy of it";
            return known(records, remedy);
        }
        Err(error) => {
            problems.push(error.to_string());
            return BTreeMap::new();
        }
    }
    let info = DatasetInfo::read(&located.folder).unwrap_or_else(|error| {
        problems.push(error.to_string());
        None
    });
    let Some(info) = info else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    for set in &located.sets {
        match info.records(set) {
            Ok(records) => all.extend(records),
            Err(problem) => problems.push(format!("{}: {problem}", located.folder.display())),
        }
    }
    known(all, &format!(", says {INFO_FILE}: take another copy of it"))
}

fn known(records: BTreeMap<String, usize>, remedy: &str) -> BTreeMap<String, Written> {
    let one = |(name, records)| (name, Written { records, remedy: remedy.to_owned() });
    records.into_iter().map(one).collect()
}
