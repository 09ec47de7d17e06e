//! What is written beside an image: its class, its size, and what ImageNet's own files say of it.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};

/// What an example says about its image.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The file's name, without its folder.
    pub file: &'a str,
    /// The class as it is written, offset included.
    pub label: u32,
    /// The class's folder.
    pub synset: &'a str,
    /// The class in words.
    pub text: &'a str,
    /// Columns, pixels.
    pub width: u32,
    /// Rows, pixels.
    pub height: u32,
    /// Bounding boxes: xmin, ymin, xmax, ymax as parts of the image's sides.
    pub boxes: &'a [[f32; 4]],
}

/// The words of each class: lines of a synset, a tab and its words, as in `imagenet_metadata.txt`.
///
/// # Errors
/// Where the file cannot be read or a line has no tab.
pub fn read_texts(path: &Path) -> Result<HashMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let pair = |(number, line): (usize, &str)| match line.split_once('\t') {
        Some((synset, words)) => Ok((synset.to_owned(), words.to_owned())),
        None => Err(Error::Shards {
            path: path.to_owned(),
            problem: format!("line {} is no synset, tab and words", number + 1),
        }),
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(pair).collect()
}

/// The bounding boxes of each file: lines of a file name and xmin, ymin, xmax, ymax between 0 and 1, separated by
/// commas, as in `imagenet_2012_bounding_boxes.csv`.
///
/// # Errors
/// Where the file cannot be read or a line is something else.
pub fn read_boxes(path: &Path) -> Result<HashMap<String, Vec<[f32; 4]>>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mut boxes: HashMap<String, Vec<[f32; 4]>> = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let (file, corners) = parse_box(line).ok_or_else(|| Error::Shards {
            path: path.to_owned(),
            problem: format!("line {} is no file name and four numbers between 0 and 1", number + 1),
        })?;
        boxes.entry(file.to_owned()).or_default().push(corners);
    }
    Ok(boxes)
}

fn parse_box(line: &str) -> Option<(&str, [f32; 4])> {
    let (file, numbers) = line.split_once(',')?;
    let numbers: Vec<f32> = numbers.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
    let corners: [f32; 4] = numbers.try_into().ok()?;
    corners.iter().all(|side| (0.0..=1.0).contains(side)).then_some((file, corners))
}
