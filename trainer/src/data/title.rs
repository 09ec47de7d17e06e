//! What people call a data set.

use std::path::Path;

use super::tfrecord::DatasetInfo;
use crate::pattern::is_pattern;

/// The data set's name: that of tensorflow_datasets' own file, else that of its folder, which is above the version's
/// (`birds/1.0.0`) and above the shards that a pattern or a file names.
pub fn title(source: &str) -> String {
    let path = Path::new(source);
    if let Some(name) = DatasetInfo::read(path).ok().flatten().and_then(|info| info.name) {
        return name;
    }
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
        return source.to_owned();
    };
    let is_part = is_version(&name) || (is_pattern(&name) && !path.is_dir()) || path.is_file();
    let folder = path.parent().filter(|_| is_part).and_then(Path::to_str);
    folder.filter(|folder| !folder.is_empty()).map_or(name, title)
}

/// `1.0.0`: three numbers.
fn is_version(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    name.split('.').count() == 3 && name.split('.').all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_a_pattern_and_a_file_are_called_as_their_folder() {
        let root = tempfile::tempdir().unwrap();
        let version = root.path().join("birds/1.0.0");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("train-00000-of-00001"), "").unwrap();
        let at = |below: &str| root.path().join(below).to_str().unwrap().to_owned();
        for below in ["birds", "birds/1.0.0", "birds/1.0.0/train-*", "birds/1.0.0/train-00000-of-00001"] {
            assert_eq!(title(&at(below)), "birds", "{below}");
        }
        std::fs::write(version.join("dataset_info.json"), r#"{"name": "great_birds"}"#).unwrap();
        assert_eq!(title(&at("birds/1.0.0/train-*")), "great_birds");
        for (source, name) in
            [("digits", "digits"), ("/x/photos", "photos"), ("train-*", "train-*"), (".", ".")]
        {
            assert_eq!(title(source), name);
        }
    }
}
