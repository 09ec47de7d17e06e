//! The photos that a command is given, by name or by the folder, and what is told of those that cannot be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tallow_trainer::data::folder::EXTENSIONS;

use crate::failure;
use crate::output::{count, json, note, say};

/// What a command says of one photo.
pub struct Answer {
    /// For people, line by line.
    pub lines: Vec<String>,
    /// For `--json`.
    pub json: Value,
}

/// The photos that are named, and those in the folders that are named, sorted. What a folder holds besides is noted on
/// standard error.
///
/// # Errors
/// Where a path cannot be read, or a folder has no photos.
pub fn named(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut photos = vec![];
    for path in paths {
        let unreadable = || format!("cannot read {}", path.display());
        if !std::fs::metadata(path).with_context(unreadable)?.is_dir() {
            photos.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(unreadable)?;
        let mut entries: Vec<PathBuf> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()
            .with_context(unreadable)?;
        entries.sort();
        let (mut found, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|file| is_photo(file));
        if let Some(passed_over) = passed_over(&others) {
            note!("{}: {passed_over}", path.display());
        }
        if found.is_empty() {
            bail!(
                "no images in the folder {}: it should hold {} files",
                path.display(),
                EXTENSIONS.join(", ")
            );
        }
        photos.append(&mut found);
    }
    Ok(photos)
}

/// Shows what `answer` says of each photo. One bad photo does not keep the others from being looked at, but the command
/// fails; its error names it, whoever found it.
///
/// # Errors
/// Where nothing can be printed.
pub fn each(
    photos: &[PathBuf],
    as_json: bool,
    mut answer: impl FnMut(&Path) -> Result<Answer>,
) -> Result<ExitCode> {
    let mut failed = false;
    let mut results = vec![];
    for photo in photos {
        let name = photo.display().to_string();
        match answer(photo) {
            Ok(answer) if as_json => results.push(answer.json),
            Ok(answer) => answer.lines.iter().try_for_each(|line| say!("{line}"))?,
            Err(error) => {
                failed = true;
                let text = failure::text(&error);
                let text = if text.contains(&name) { text } else { format!("{name}: {text}") };
                note!("error: {text}");
                results.push(json!({ "image": name, "error": text }));
            }
        }
    }
    if as_json {
        json(&results)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn ending(path: &Path) -> String {
    path.extension().map_or(String::new(), |ending| ending.to_string_lossy().to_lowercase())
}

fn is_photo(path: &Path) -> bool {
    EXTENSIONS.contains(&ending(path).as_str())
}

/// What is said of the files of a folder that are no photos by their names; hidden ones are nobody's photos.
fn passed_over(others: &[PathBuf]) -> Option<String> {
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut endings = BTreeMap::<String, usize>::new();
    for file in others.iter().filter(|file| !hidden(file) && file.is_file()) {
        let ending = ending(file);
        let ending = if ending.is_empty() { "without an ending".into() } else { format!(".{ending}") };
        *endings.entry(ending).or_default() += 1;
    }
    let files = endings.values().sum();
    let each: Vec<String> = endings.iter().map(|(ending, n)| format!("{n} {ending}")).collect();
    (files > 0).then(|| {
        format!(
            "{} passed over ({}): photos are {} files; convert pictures of other formats, such as GIF or HEIC, to PNG",
            count(files, "file"),
            each.join(", "),
            EXTENSIONS.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_is_counted_by_its_ending() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["b.gif", "a.GIF", "c.heic", "notes", ".DS_Store"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| std::fs::write(file, "x").unwrap());
        let text = passed_over(&files).unwrap();
        assert!(text.starts_with("4 files passed over (2 .gif, 1 .heic, 1 without an ending): "), "{text}");
        assert_eq!(passed_over(&files[4..]), None);
    }
}
