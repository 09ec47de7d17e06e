//! The tensors of a network: initialised, loaded strictly, saved atomically.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::graph::{Graph, Parameter, Role};
use crate::rng::Rng;

/// Every parameter and buffer of one network, by name.
///
/// Parameters are f32, counters i64; names and shapes are those of [`Graph::parameters`], no more and no less.
#[derive(Clone, Debug)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Draws every tensor by its initialiser. The same graph and seed give the same bits.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn init(graph: &Graph, seed: u64, device: &Device) -> Result<Self> {
        let parameters = graph.parameters();
        let draw = |(i, parameter): (usize, &Parameter)| {
            parameter.init.sample(&parameter.shape, &mut Rng::stream(seed, &[i as u64]))
        };
        let drawn: Vec<Vec<f32>> = parameters.par_iter().enumerate().map(draw).collect();
        let mut tensors = BTreeMap::new();
        for (parameter, values) in parameters.into_iter().zip(drawn) {
            let tensor = match parameter.role {
                Role::BatchesTracked => Tensor::zeros((), DType::I64, device)?,
                _ => Tensor::from_vec(values, parameter.shape, device)?,
            };
            tensors.insert(parameter.name, tensor);
        }
        Ok(Self { tensors })
    }

    /// Takes tensors that came from elsewhere; floating-point tensors are converted to f32.
    ///
    /// # Errors
    /// Where a tensor is missing, left over or wrongly shaped; the error lists all of them. `origin` names the file
    /// in it.
    pub fn from_tensors(graph: &Graph, mut tensors: BTreeMap<String, Tensor>, origin: &str) -> Result<Self> {
        let mut differences = Differences::default();
        let mut taken = BTreeMap::new();
        for parameter in graph.parameters() {
            match tensors.remove(&parameter.name) {
                None => differences.missing.push(parameter.name),
                Some(tensor) if tensor.dims() != parameter.shape => differences.mismatched.push(Mismatch {
                    name: parameter.name,
                    expected: parameter.shape,
                    actual: tensor.dims().to_vec(),
                }),
                Some(tensor) => {
                    let dtype = if parameter.role == Role::BatchesTracked { DType::I64 } else { DType::F32 };
                    taken.insert(parameter.name, tensor.to_dtype(dtype)?);
                }
            }
        }
        differences.unexpected = tensors.into_keys().collect();
        if differences.is_empty() {
            return Ok(Self { tensors: taken });
        }
        let differences = Box::new(differences);
        Err(Error::Weights { origin: origin.to_owned(), network: graph.name().to_owned(), differences })
    }

    /// Reads a safetensors file, such as torchvision's `state_dict` saved as it is, and checks it strictly.
    ///
    /// # Errors
    /// Where the file cannot be read, or does not fit the network ([`Self::from_tensors`]).
    pub fn load(graph: &Graph, path: &Path, device: &Device) -> Result<Self> {
        Self::from_tensors(graph, read_safetensors(path, device)?, &path.display().to_string())
    }

    /// Writes a safetensors file; the same weights give the same bytes. The file appears whole or not at all.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_safetensors(path, &self.tensors)
    }

    /// The tensor with this name.
    ///
    /// # Panics
    /// If the graph these weights were made for has no such tensor.
    pub fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the network has no tensor `{name}`"))
    }

    /// Replaces a tensor by one of the same shape.
    ///
    /// # Panics
    /// If there is no such tensor, or its shape differs.
    pub fn set(&mut self, name: &str, tensor: Tensor) {
        let slot = self.tensors.get_mut(name).unwrap_or_else(|| panic!("the network has no tensor `{name}`"));
        assert_eq!(slot.dims(), tensor.dims(), "`{name}` cannot change its shape");
        *slot = tensor;
    }

    /// The same tensors on another device; without a copy where they are there.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let moved = self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.to_device(device)?)));
        Ok(Self { tensors: moved.collect::<Result<_>>()? })
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}

/// How a set of tensors differs from what a network needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Tensors the network needs and did not get.
    pub missing: Vec<String>,
    /// Tensors the network has no place for.
    pub unexpected: Vec<String>,
    /// Tensors of another shape.
    pub mismatched: Vec<Mismatch>,
}

/// A tensor of another shape than the network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The tensor.
    pub name: String,
    /// The network's shape.
    pub expected: Vec<usize>,
    /// The file's shape.
    pub actual: Vec<usize>,
}

impl Differences {
    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

/// The names shown of each kind; a wrong file can differ in a thousand.
const SHOWN: usize = 12;

impl std::fmt::Display for Differences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mismatched: Vec<String> = self
            .mismatched
            .iter()
            .map(|m| format!("{} (needs {:?}, has {:?})", m.name, m.expected, m.actual))
            .collect();
        let kinds =
            [("missing", &self.missing), ("unexpected", &self.unexpected), ("wrong shape", &mismatched)];
        let mut separator = "";
        for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
            let shown = &names[..names.len().min(SHOWN)];
            write!(f, "{separator}{} {kind}: {}", names.len(), shown.join(", "))?;
            if names.len() > SHOWN {
                write!(f, ", … and {} more", names.len() - SHOWN)?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// Reads every tensor of a safetensors file. Tensors keep their type.
///
/// # Errors
/// Where the file cannot be read, is cut short, or holds a type candle has not.
pub fn read_safetensors(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let unreadable = |problem: String| Error::WeightsFile { path: path.to_owned(), problem };
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| unreadable(e.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let dtype = match view.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I64 => DType::I64,
            Dtype::U32 => DType::U32,
            Dtype::U8 => DType::U8,
            other => return Err(unreadable(format!("tensor `{name}` has the unsupported type {other:?}"))),
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), device)?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// Writes tensors (f32 or 64-bit integers) as safetensors, in the order of their names, under a temporary name first.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write_safetensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut buffers = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let flat = tensor.flatten_all()?;
        let (dtype, bytes) = match tensor.dtype() {
            DType::I64 => {
                (Dtype::I64, flat.to_vec1::<i64>()?.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
            }
            _ => (Dtype::F32, flat.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        buffers.push((name, dtype, tensor.dims().to_vec(), bytes));
    }
    let unwritable = |problem: String| Error::WeightsFile { path: path.to_owned(), problem };
    let views = buffers
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| unwritable(e.to_string()))?;
    let bytes = safetensors::serialize(views, None).map_err(|e| unwritable(e.to_string()))?;
    write_atomically(path, &bytes)
}
