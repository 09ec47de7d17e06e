//! Tensors on disk, to look at with NumPy: `<engine>/<batch>/<value>.npy`, and `index.csv`, which says what each is.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ndarray::ArrayD;

use super::every_value::Value;
use super::npy::{self, Number};
use crate::error::Error;

/// A folder that takes the tensors of all engines.
pub(super) struct Keeper {
    folder: PathBuf,
    /// The file of each value, without its ending.
    files: HashMap<String, String>,
}

impl Keeper {
    /// Makes the folder and writes the index.
    ///
    /// # Errors
    /// Where the folder holds something already or cannot be made.
    pub(super) fn new(folder: &Path, values: &[Value]) -> Result<Self, Error> {
        let failed = |source| Error::Write { path: folder.to_owned(), source };
        check(folder)?;
        fs::create_dir_all(folder).map_err(failed)?;
        let mut index = String::from("file,layer,op,inputs\n");
        let mut files = HashMap::new();
        for (i, value) in values.iter().enumerate() {
            // The number keeps the order, and apart what the replacement makes equal.
            let file = format!("{i:03}_{}", plain(&value.name));
            let cells = [&format!("{file}.npy"), &value.name, &value.op, &value.inputs.join(" ")];
            index += &format!("{}\n", cells.map(|cell| quoted(cell)).join(","));
            files.insert(value.name.clone(), file);
        }
        let path = folder.join("index.csv");
        fs::write(&path, index).map_err(|source| Error::Write { path, source })?;
        Ok(Self { folder: folder.to_owned(), files })
    }

    /// Keeps an engine's value of a batch. What the index does not know, such as the images, keeps its name.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn keep<T: Number>(
        &self,
        engine: &str,
        batch: usize,
        name: &str,
        value: &ArrayD<T>,
    ) -> Result<(), Error> {
        let folder = self.folder.join(engine).join(format!("batch{batch}"));
        let file = self.files.get(name).cloned().unwrap_or_else(|| plain(name));
        let path = folder.join(format!("{file}.npy"));
        let write = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            let mut out = BufWriter::new(File::create(&path)?);
            npy::write(&mut out, value.shape(), value.iter().copied())?;
            out.flush()
        };
        write().map_err(|source| Error::Write { path: path.clone(), source })
    }
}

/// Refuses a folder that holds something already; one that is not there yet is fine.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::NotEmpty { path: folder.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Write { path: folder.to_owned(), source }),
    }
}

/// A name that every file system takes.
fn plain(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    name.trim_matches(['_', '.']).chars().take(150).collect()
}

fn quoted(cell: &str) -> String {
    match cell.contains(['"', ',', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    }
}
