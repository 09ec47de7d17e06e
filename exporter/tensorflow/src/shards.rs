//! How the files of a sharded set are called: `train-00003-of-01024`, `imagenet2012-train.tfrecord-00003-of-01024`.
//! A set knows which of its files are missing, because every name tells how many there are.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Endings of files that are a set of their own.
const ENDINGS: [&str; 2] = [".tfrecord", ".tfrecords"];
/// More shards than any set has; a larger number in a name is no shard's.
const MOST_SHARDS: usize = 1_000_000;

/// The name of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardName {
    /// What stands before the numbers: `train`, `imagenet2012-train.tfrecord`.
    pub prefix: String,
    /// The shard's number, from 0.
    pub index: usize,
    /// Shards in the set.
    pub total: usize,
    /// What stands behind the numbers: usually nothing.
    pub suffix: String,
}

impl ShardName {
    /// Reads a file name; `None` for one that is no shard's.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some((front, back)) = name.rsplit_once("-of-") {
            let (prefix, index) = front.rsplit_once('-')?;
            let digits = back.bytes().take_while(u8::is_ascii_digit).count();
            let (total, suffix) = back.split_at(digits);
            let numeric = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
            let (index, total) = (index.parse().ok()?, total.parse().ok()?);
            let known = suffix.is_empty() || ENDINGS.contains(&suffix);
            let sound = numeric && known && !prefix.is_empty() && index < total && total <= MOST_SHARDS;
            return sound.then(|| Self { prefix: prefix.into(), index, total, suffix: suffix.into() });
        }
        let prefix = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending))?;
        let suffix = name[prefix.len()..].to_owned();
        (!prefix.is_empty()).then(|| Self { prefix: prefix.into(), index: 0, total: 0, suffix })
    }

    /// The name of shard `index`.
    pub fn with_index(&self, index: usize) -> Self {
        Self { index, ..self.clone() }
    }

    /// What the set holds: `train` of `train-…` and of `imagenet2012-train.tfrecord-…`.
    pub fn split(&self) -> &str {
        let prefix = ENDINGS.iter().find_map(|ending| self.prefix.strip_suffix(ending));
        let prefix = prefix.unwrap_or(&self.prefix);
        prefix.rsplit_once('-').map_or(prefix, |(_, split)| split)
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, index, total, suffix } = self;
        match total {
            // A file without numbers is a set of its own.
            0 => write!(f, "{prefix}{suffix}"),
            _ => write!(f, "{prefix}-{index:05}-of-{total:05}{suffix}"),
        }
    }
}

/// The files of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSet {
    /// The first file's name.
    pub name: ShardName,
    /// The files that are there, by number.
    pub files: Vec<PathBuf>,
    /// Names of the files that are not.
    pub missing: Vec<String>,
}

/// The sets in a folder, sorted by name; files that are no shards are passed over.
///
/// # Errors
/// Where the folder cannot be read.
pub fn find(folder: &Path) -> Result<Vec<ShardSet>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut sets = group(paths.map_err(Error::io(folder))?);
    // Names are looked at first: a folder may hold very many files that are no shards.
    for set in &mut sets {
        set.files.retain(|path| path.is_file());
    }
    sets.retain(|set| !set.files.is_empty());
    Ok(sets)
}

/// Sorts files into the sets that their names tell; files that are no shards are passed over.
pub fn group(paths: impl IntoIterator<Item = PathBuf>) -> Vec<ShardSet> {
    let mut sets: BTreeMap<(String, usize, String), BTreeMap<usize, PathBuf>> = BTreeMap::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
        if let Some(ShardName { prefix, index, total, suffix }) = name.and_then(ShardName::parse) {
            sets.entry((prefix, total, suffix)).or_default().insert(index, path);
        }
    }
    let set = |((prefix, total, suffix), files): ((String, usize, String), BTreeMap<usize, PathBuf>)| {
        let name = ShardName { prefix, index: 0, total, suffix };
        let absent = (0..total).filter(|index| !files.contains_key(index));
        let missing = absent.map(|index| name.with_index(index).to_string()).collect();
        ShardSet { missing, files: files.into_values().collect(), name }
    };
    sets.into_iter().map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_tell_their_split() {
        for (text, split, index, total) in [
            ("train-00003-of-01024", "train", 3, 1024),
            ("validation-00127-of-00128", "validation", 127, 128),
            ("imagenet2012-train.tfrecord-00000-of-01024", "train", 0, 1024),
            ("train-00000-of-00001.tfrecord", "train", 0, 1),
            ("my-set-test-00000-of-00001", "test", 0, 1),
            ("flowers-train.tfrecords", "train", 0, 0),
        ] {
            let name = ShardName::parse(text).unwrap();
            assert_eq!((name.split(), name.index, name.total), (split, index, total));
            assert_eq!(name.to_string(), text);
        }
        for text in [
            "train",
            "labels.txt",
            "-00000-of-00001",
            "train-0000x-of-00001",
            "train-00002-of-00002",
            "train-+1-of-00002",
            "train-00000-of-00002.gz",
            "train-00000-of-",
            "train-00000-of-99999999999999999999999",
            "train-00000-of-09999999",
            ".tfrecord",
        ] {
            assert_eq!(ShardName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn files_form_sets_that_know_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "train-00002-of-00004",
            "train-00000-of-00004",
            "validation-00000-of-00001",
            "labels.txt",
            ".unfinished-train-00001-of-00004",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let sets = find(folder.path()).unwrap();
        let names: Vec<_> = sets.iter().map(|set| set.name.split()).collect();
        assert_eq!(names, ["train", "validation"]);
        assert_eq!(sets[0].missing, ["train-00001-of-00004", "train-00003-of-00004"]);
        assert_eq!(sets[0].files.len(), 2);
        assert!(sets[0].files[1].ends_with("train-00002-of-00004"));
        assert!(sets[1].missing.is_empty());
    }
}
