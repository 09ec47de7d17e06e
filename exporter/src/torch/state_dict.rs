//! A state dict's tensors by name.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::file::TorchFile;
use super::pickle::{Node, Pickle, Ref};
use crate::error::{Error, Result};

/// Under what training scripts keep the state dict in a checkpoint; the first that is there is taken.
const KEYS: [&str; 4] = ["state_dict", "model_state_dict", "model", "weights"];
/// Calls within calls around a tensor (a parameter, a subclass), and dictionaries within dictionaries around tensors.
const DEEPEST: usize = 8;

/// Reads the tensors of a `.pth` or `.pt` file: floating-point ones as 32-bit, integers as 64-bit. The file holds a
/// state dict, or a checkpoint with one under `key` (`a.b` for dictionaries in each other), or else under the usual
/// names. A leading `module.` that every name has (`DataParallel`'s) is taken off.
///
/// # Errors
/// Where the file is damaged, or holds something else than tensors by name; a pickled module is code and is refused.
pub fn read_state_dict(path: &Path, key: Option<&str>) -> Result<BTreeMap<String, Tensor>> {
    let failed = |problem: String| Error::Torch { path: path.to_owned(), problem };
    let mut file = TorchFile::open(path, |class| Element::of(class).map(Element::size)).map_err(failed)?;
    let entries = state_dict(&file.pickle, key).map_err(failed)?;
    let mut found = vec![];
    for (name, value) in entries {
        if let Some(view) =
            View::of(&file.pickle, value).map_err(|problem| failed(format!("`{name}`: {problem}")))?
        {
            found.push((name, view));
        }
    }
    let parallel = found.iter().all(|(name, _)| name.starts_with("module."));
    let mut tensors = BTreeMap::new();
    for (name, view) in found {
        let tensor = view.read(&mut file).map_err(|problem| failed(format!("`{name}`: {problem}")))?;
        let name = if parallel { name["module.".len()..].to_owned() } else { name };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Names and values of a dictionary; what has no text for a name is passed over.
type Entries = Vec<(String, Ref)>;

/// The entries of the state dict.
fn state_dict(pickle: &Pickle, key: Option<&str>) -> Result<Entries, String> {
    let root = entries(pickle, pickle.root).ok_or_else(|| no_dictionary(pickle))?;
    let Some(key) = key else {
        if has_tensors(pickle, &root) {
            return Ok(root);
        }
        let mut usual = KEYS.iter().filter_map(|key| entries(pickle, at(pickle, pickle.root, key)?));
        return usual.find(|found| has_tensors(pickle, found)).ok_or_else(|| no_tensors(pickle));
    };
    let Some(found) = at(pickle, pickle.root, key).and_then(|value| entries(pickle, value)) else {
        return Err(format!("it has no dictionary `{key}`; it has {}", names(&root)));
    };
    if has_tensors(pickle, &found) { Ok(found) } else { Err(format!("`{key}`: {}", no_tensors(pickle))) }
}

fn entries(pickle: &Pickle, value: Ref) -> Option<Entries> {
    let named = |&(key, value): &(Ref, Ref)| Some((pickle.text(key)?.to_owned(), value));
    Some(pickle.dict(value)?.iter().filter_map(named).collect())
}

fn names(entries: &Entries) -> String {
    entries.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn has_tensors(pickle: &Pickle, entries: &Entries) -> bool {
    // A tensor that cannot be read is one all the same, and says why later.
    entries.iter().any(|&(_, value)| !matches!(View::of(pickle, value), Ok(None)))
}

/// What stands in a dictionary under `key`, or under the parts of `key` in dictionaries within dictionaries: names may
/// have dots of their own.
fn at(pickle: &Pickle, dict: Ref, key: &str) -> Option<Ref> {
    let entries = pickle.dict(dict)?;
    let under =
        |key: &str| entries.iter().find(|&&(name, _)| pickle.text(name) == Some(key)).map(|entry| entry.1);
    let nested = |(dot, _)| at(pickle, under(&key[..dot])?, &key[dot + 1..]);
    under(key).or_else(|| key.match_indices('.').find_map(nested))
}

/// What the file holds in place of a dictionary.
fn no_dictionary(pickle: &Pickle) -> String {
    let what = match (pickle.node(pickle.root), View::of(pickle, pickle.root)) {
        (_, Ok(Some(_)) | Err(_)) => "a single tensor",
        (Node::List(_) | Node::Tuple(_), _) => "a list",
        (Node::Call { .. }, _) => {
            return "it holds a pickled module, which is code and is not executed: save its state_dict() instead".into();
        }
        _ => "a single value",
    };
    format!("it holds {what} and no tensors by name: save the model's state_dict()")
}

/// Why no state dict was found, with the keys of dictionaries that have tensors.
fn no_tensors(pickle: &Pickle) -> String {
    let (mut keys, mut seen) = (vec![], HashSet::from([pickle.root]));
    let mut level = vec![(String::new(), pickle.root)];
    for _ in 0..DEEPEST {
        let mut next = vec![];
        for (path, dict) in level {
            let found = entries(pickle, dict).unwrap_or_default();
            for (name, value) in &found {
                if pickle.dict(*value).is_some() && seen.insert(*value) {
                    next.push((
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") },
                        *value,
                    ));
                }
            }
            if has_tensors(pickle, &found) {
                keys.push(path);
            }
        }
        level = next;
    }
    if keys.is_empty() {
        return "there are no tensors by name in it: save the model's state_dict()".into();
    }
    format!(
        "no tensors where a state dict usually is, but under {}: name the right one with --key",
        keys.join(", ")
    )
}

/// A tensor as the pickle describes it: a view of a storage.
#[derive(Debug)]
struct View {
    element: Element,
    key: String,
    /// Elements of the storage.
    count: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl View {
    /// The tensor at `value`; none where something else is.
    fn of(pickle: &Pickle, mut value: Ref) -> Result<Option<Self>, String> {
        for _ in 0..DEEPEST {
            let Some((module, name, arguments)) = pickle.call(value) else { return Ok(None) };
            match (module, name) {
                ("torch._utils", "_rebuild_tensor_v2") => return Self::rebuilt(pickle, arguments).map(Some),
                ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                    value = *arguments.first().ok_or("a parameter without data")?;
                }
                ("torch._utils", name) if name.starts_with("_rebuild") => {
                    return Err(format!("{name} tensors are not supported: save dense floating-point ones"));
                }
                _ => return Ok(None),
            }
        }
        Err("it is nested too deeply".into())
    }

    /// (storage, offset, size, stride, …)
    fn rebuilt(pickle: &Pickle, arguments: &[Ref]) -> Result<Self, String> {
        let described = || {
            let &[storage, offset, shape, strides, ..] = arguments else { return None };
            let Node::Persistent(id) = pickle.node(storage) else { return None };
            let &[_, class, key, _, count, ..] = pickle.tuple(*id)? else { return None };
            let Node::Global(_, class) = pickle.node(class) else { return None };
            let size = |value: Ref| usize::try_from(pickle.int(value)?).ok();
            let sizes = |value: Ref| {
                pickle.tuple(value)?.iter().map(|&value| size(value)).collect::<Option<Vec<_>>>()
            };
            let key = pickle.text(key)?.to_owned();
            Some((class, key, size(count)?, size(offset)?, sizes(shape)?, sizes(strides)?))
        };
        let (class, key, count, offset, shape, strides) =
            described().ok_or("it is not described as tensors are")?;
        let element =
            Element::of(class).ok_or_else(|| format!("{class} is not supported: save it as float32"))?;
        // Views that repeat elements are no weights, and could be of any size.
        let elements = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let last = shape.iter().zip(&strides).try_fold(offset, |last, (&dim, &stride)| {
            last.checked_add(dim.saturating_sub(1).checked_mul(stride)?)
        });
        let inside = elements == Some(0) || last.is_some_and(|last| last < count);
        if inside && elements.is_none_or(|elements| elements > count) {
            return Err("it repeats its elements, as expand() does: save it with .contiguous()".into());
        }
        if !inside || shape.len() != strides.len() {
            return Err(format!(
                "its shape {shape:?} with strides {strides:?} leads out of its storage of {count}"
            ));
        }
        Ok(Self { element, key, count, offset, shape, strides })
    }

    fn read(&self, file: &mut TorchFile) -> Result<Tensor, String> {
        let length = self.count.checked_mul(self.element.size()).ok_or("its storage is impossibly large")?;
        let bytes = file.storage(&self.key, length as u64)?;
        if bytes.len() < length {
            return Err(format!(
                "its storage has {} bytes instead of {length}: the file is cut short",
                bytes.len()
            ));
        }
        let places = self.places();
        let tensor = match self.element {
            Element::Float(read, size) => {
                let values: Vec<f32> =
                    places.iter().map(|place| read(&bytes[place * size..][..size])).collect();
                Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)
            }
            Element::Integer(read, size) => {
                let values: Vec<i64> =
                    places.iter().map(|place| read(&bytes[place * size..][..size])).collect();
                Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)
            }
        };
        tensor.map_err(|e| e.to_string())
    }

    /// The storage's element for each of the tensor's, the last axis fastest.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![self.offset];
        for (&dim, &stride) in self.shape.iter().zip(&self.strides) {
            places = places.iter().flat_map(|place| (0..dim).map(move |i| place + i * stride)).collect();
        }
        places
    }
}

/// How an element of a storage is read from its bytes, and how many these are.
#[derive(Clone, Copy, Debug)]
enum Element {
    Float(fn(&[u8]) -> f32, usize),
    Integer(fn(&[u8]) -> i64, usize),
}

impl Element {
    /// By the storage's class.
    fn of(class: &str) -> Option<Self> {
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes.try_into().expect("as many bytes as the element has")
        }
        Some(match class {
            "FloatStorage" => Self::Float(|bytes| f32::from_le_bytes(array(bytes)), 4),
            "DoubleStorage" => Self::Float(|bytes| f64::from_le_bytes(array(bytes)) as f32, 8),
            "HalfStorage" => Self::Float(|bytes| f16::from_le_bytes(array(bytes)).to_f32(), 2),
            "BFloat16Storage" => Self::Float(|bytes| bf16::from_le_bytes(array(bytes)).to_f32(), 2),
            "LongStorage" => Self::Integer(|bytes| i64::from_le_bytes(array(bytes)), 8),
            "IntStorage" => Self::Integer(|bytes| i32::from_le_bytes(array(bytes)).into(), 4),
            "ShortStorage" => Self::Integer(|bytes| i16::from_le_bytes(array(bytes)).into(), 2),
            "CharStorage" => Self::Integer(|bytes| i8::from_le_bytes(array(bytes)).into(), 1),
            "ByteStorage" | "BoolStorage" => Self::Integer(|bytes| bytes[0].into(), 1),
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::Float(_, size) | Self::Integer(_, size) => size,
        }
    }
}
