//! The two layouts of `torch.save`: a zip archive since version 1.6, and before that pickles in a row with the bytes of
//! all storages behind them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use zip::ZipArchive;

use super::pickle::{Node, Pickle};
use crate::kind::ZIP;

/// What the older layout begins with: a pickle of its magic number, 0x1950a86a20f9469cfc6c.
pub(crate) const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// A pickle of names and shapes is never as large; one that claims to be is no state dict.
const LARGEST_PICKLE: u64 = 1 << 28;

/// The pickled object and where the bytes of its storages are.
pub(super) struct TorchFile {
    pub pickle: Pickle,
    storages: Storages,
}

enum Storages {
    /// Entries of the archive, below this folder.
    Zip { archive: Box<ZipArchive<BufReader<File>>>, folder: String },
    /// The file's bytes, and the place of each storage's.
    Legacy { bytes: Vec<u8>, places: BTreeMap<String, std::ops::Range<usize>> },
}

impl TorchFile {
    /// Opens a file; `element_size` gives the bytes of an element by the name of the storage's class.
    ///
    /// # Errors
    /// The text says what is wrong with the file.
    pub(super) fn open(path: &Path, element_size: impl Fn(&str) -> Option<usize>) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|e| e.to_string())?;
        let mut start = [0; 4];
        file.read_exact(&mut start).map_err(|_| "the file is cut short".to_owned())?;
        file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
        if start == ZIP {
            return Self::open_zip(file);
        }
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        Self::open_legacy(bytes, element_size)
    }

    fn open_zip(file: File) -> Result<Self, String> {
        let unreadable = |e: zip::result::ZipError| format!("the archive is damaged or cut short ({e})");
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(unreadable)?;
        let names: Vec<String> = archive.file_names().flatten().map(|name| name.into_owned()).collect();
        let pickled = names.iter().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
        let pickled = pickled.ok_or("the archive holds no data.pkl, so torch.save did not write it")?;
        let folder = pickled.trim_end_matches("data.pkl").to_owned();
        if names.contains(&format!("{folder}constants.pkl")) {
            return Err("it is a TorchScript program: save its state_dict() with torch.save instead".into());
        }
        if let Ok(mut entry) = archive.by_name(&format!("{folder}byteorder")) {
            let mut order = String::new();
            let read = entry.by_ref().take(16).read_to_string(&mut order);
            if read.is_ok() && order == "big" {
                return Err("it was written on a big-endian machine; save it again on another".into());
            }
        }
        let bytes = read_entry(&mut archive, pickled, LARGEST_PICKLE)?;
        let pickle = Pickle::read(&bytes)?;
        Ok(Self { pickle, storages: Storages::Zip { archive: Box::new(archive), folder } })
    }

    fn open_legacy(bytes: Vec<u8>, element_size: impl Fn(&str) -> Option<usize>) -> Result<Self, String> {
        let mut place = 0;
        let mut next = || {
            let pickle = Pickle::read(&bytes[place..])?;
            place += pickle.length;
            Ok::<Pickle, String>(pickle)
        };
        // Magic number, version of the layout, the machine.
        let [_, version, _] = [next()?, next()?, next()?];
        if version.int(version.root) != Some(1001) {
            return Err("it has another layout than torch.save writes".into());
        }
        let (pickle, keys) = (next()?, next()?);
        let keys = keys.tuple(keys.root).ok_or("it lists no storages")?.iter().map(|&key| keys.text(key));
        let keys: Vec<String> =
            keys.map(|key| key.map(str::to_owned)).collect::<Option<_>>().ok_or("it lists no storages")?;
        let sizes = storage_sizes(&pickle, element_size);
        let mut places = BTreeMap::new();
        for key in keys {
            let size = *sizes.get(&key).ok_or_else(|| format!("storage {key} has no known type"))?;
            let count =
                bytes.get(place..).and_then(|rest| rest.first_chunk::<8>()).ok_or("the file is cut short")?;
            let length =
                usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(size));
            let start = place + 8;
            let end = length.and_then(|length| start.checked_add(length)).filter(|&end| end <= bytes.len());
            place = end.ok_or("the file is cut short")?;
            places.insert(key, start..place);
        }
        Ok(Self { pickle, storages: Storages::Legacy { bytes, places } })
    }

    /// The bytes of a storage, at most `limit` of them.
    ///
    /// # Errors
    /// The text says what is wrong with it.
    pub(super) fn storage(&mut self, key: &str, limit: u64) -> Result<Vec<u8>, String> {
        match &mut self.storages {
            Storages::Zip { archive, folder } => read_entry(archive, &format!("{folder}data/{key}"), limit),
            Storages::Legacy { bytes, places } => {
                let place = places.get(key).ok_or_else(|| format!("storage {key} is missing"))?;
                let mut storage = vec![];
                let read = Cursor::new(&bytes[place.clone()]).take(limit).read_to_end(&mut storage);
                read.map(|_| storage).map_err(|e| e.to_string())
            }
        }
    }
}

fn read_entry(archive: &mut ZipArchive<BufReader<File>>, name: &str, limit: u64) -> Result<Vec<u8>, String> {
    let unreadable = |e: String| format!("`{name}` cannot be read from the archive ({e})");
    let mut entry = archive.by_name(name).map_err(|e| unreadable(e.to_string()))?;
    if entry.size() > limit {
        return Err(unreadable(format!("it has {} bytes where {limit} are expected", entry.size())));
    }
    let mut bytes = vec![];
    // One byte more than there may be: the archive's checksum is looked at only when the end is reached.
    entry.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(|e| unreadable(e.to_string()))?;
    Ok(bytes)
}

/// The bytes of an element of each storage that the pickle refers to: ("storage", class, key, place, count, …).
fn storage_sizes(pickle: &Pickle, element_size: impl Fn(&str) -> Option<usize>) -> BTreeMap<String, usize> {
    let ids = pickle.persistent_ids().filter_map(|id| pickle.tuple(id));
    ids.filter_map(|id| {
        let Node::Global(_, class) = pickle.node(*id.get(1)?) else { return None };
        Some((pickle.text(*id.get(2)?)?.to_owned(), element_size(class)?))
    })
    .collect()
}
