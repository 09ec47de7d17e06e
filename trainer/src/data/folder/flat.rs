//! Validation images side by side, as ImageNet's archive has them: `validation/<image>`, and beside that folder a file
//! with the class of each.

use std::path::Path;

use super::{ImageFolder, images_in, unknown_class};
use crate::error::{Error, Result};

/// One line for each image in the flat validation folder, sorted by name: its class.
pub const FLAT_LABELS: &str = "synset_labels.txt";

/// The images in `folder`, of the sorted classes of `train` that [`FLAT_LABELS`] in `root` gives them.
///
/// # Errors
/// Where the file has another number of lines than there are images, or a line that names no class.
pub(super) fn open(root: &Path, folder: &Path, train: &[String]) -> Result<ImageFolder> {
    let path = root.join(FLAT_LABELS);
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let images = images_in(folder)?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let unusable = |problem: String| Error::Layout { path: path.clone(), problem };
    if lines.len() != images.len() {
        return Err(unusable(format!(
            "{} lines for {} images in {}: it needs one for each, sorted by name",
            lines.len(),
            images.len(),
            folder.display()
        )));
    }
    let label = |(number, class): (usize, &str)| match train
        .binary_search_by(|known| known.as_str().cmp(class))
    {
        Ok(label) => Ok(label as u32),
        Err(_) if class.is_empty() => Err(unusable(format!("line {} is empty: name a class", number + 1))),
        Err(_) => Err(unusable(format!("line {}: {}", number + 1, unknown_class(class, train)))),
    };
    let labels: Vec<u32> = lines.into_iter().enumerate().map(label).collect::<Result<_>>()?;
    Ok(ImageFolder::of(folder, train.to_vec(), images.into_iter().zip(labels).collect()))
}

/// Refuses a validation folder with images that nothing gives a class.
///
/// # Errors
/// [`Error::Layout`] with both remedies.
pub(super) fn refuse_unlabelled(root: &Path, folder: &Path) -> Result<()> {
    if images_in(folder)?.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "images without class folders: put them into class folders, or write the class of each, sorted by name, into {}",
        root.join(FLAT_LABELS).display()
    );
    Err(Error::Layout { path: folder.to_owned(), problem })
}
