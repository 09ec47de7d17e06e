//! What is to be launched.

use candle_core::{DType, Result, Tensor};

use crate::memory::pointer;

/// A file of kernels.
#[derive(Debug)]
pub struct Source {
    /// Its name, for messages and caches.
    pub name: &'static str,
    /// CUDA C++; the prelude comes before it.
    pub text: &'static str,
}

/// The constants that a source is compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The element type `T`: F32, F16 or BF16.
    pub element: DType,
    /// Elements that a thread moves at once, `VECTOR`.
    pub vector: u8,
    /// `P0` to `P5`, for what a source is specialised on besides.
    pub parameters: [u16; 6],
}

impl Variant {
    /// For elements of a type, in packs of so many.
    pub fn new(element: DType, vector: u8) -> Self {
        Self { element, vector, parameters: [0; 6] }
    }

    /// The name that the element type has in the sources.
    ///
    /// # Errors
    /// For types that no kernel computes with.
    pub(crate) fn element_name(&self) -> Result<&'static str> {
        match self.element {
            DType::F32 => Ok("float"),
            DType::F16 => Ok("f16"),
            DType::BF16 => Ok("bf16"),
            other => candle_core::bail!("kernels compute on f32, f16 and bf16, not on {other:?}"),
        }
    }

    /// The whole text to compile.
    pub(crate) fn text(&self, source: &Source) -> Result<String> {
        let mut text = format!("#define VECTOR {}\n", self.vector);
        for (i, value) in self.parameters.iter().enumerate() {
            text += &format!("#define P{i} {value}\n");
        }
        text += include_str!("prelude.cu");
        text += include_str!("table.cu");
        // After the prelude, which declares the types.
        text += &format!("\ntypedef {} T;\n", self.element_name()?);
        text += source.text;
        text += &format!("\n#ifdef EMULATED\n{}#endif\n", exported(source.text));
        Ok(text)
    }
}

/// For the host: for each kernel of a source, a function that unpacks its arguments, and their number. Fibres are for
/// those with barriers alone.
fn exported(text: &str) -> String {
    let kernels = text.split("\nKERNEL ").skip(1).filter_map(|kernel| kernel.split_once('('));
    kernels
        .map(|(name, body)| {
            let barriers = ["__syncthreads", "block_", "sum_over_rows", "row_of_block"]
                .iter()
                .any(|call| body.contains(call));
            format!(
                "extern \"C\" void emulate_{name}(void **arguments, const unsigned *grid, unsigned threads) \
                 {{ emulate({name}, arguments, grid, threads, {barriers}); }}\n\
                 extern \"C\" const unsigned count_{name} = parameters({name});\n"
            )
        })
        .collect()
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// An address on the device, or 0 for none.
    Pointer(u64),
    /// `i64`.
    Long(i64),
    /// `int`.
    Int(i32),
    /// `float`.
    Float(f32),
}

impl From<u64> for Arg {
    fn from(address: u64) -> Self {
        Self::Pointer(address)
    }
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

/// One launch of a kernel.
#[derive(Debug)]
pub struct Launch {
    /// The file it is in.
    pub source: &'static Source,
    /// What the file is compiled with.
    pub variant: Variant,
    /// Its name.
    pub kernel: &'static str,
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// In the order of the kernel's parameters.
    pub arguments: Vec<Arg>,
}

/// Threads of a block where nothing else is said; `BLOCK` of the prelude.
pub const BLOCK: u32 = 256;

impl Launch {
    /// A launch whose threads deal `work` items out among themselves, each taking several where there are many.
    pub fn over(source: &'static Source, variant: Variant, kernel: &'static str, work: usize) -> Self {
        // Enough blocks to fill any GPU several times over.
        let blocks = work.div_ceil(BLOCK as usize).clamp(1, 1 << 16) as u32;
        Self::blocks(source, variant, kernel, [blocks, 1, 1])
    }

    /// A launch of so many blocks along each axis.
    pub fn blocks(source: &'static Source, variant: Variant, kernel: &'static str, grid: [u32; 3]) -> Self {
        Self { source, variant, kernel, grid, threads: BLOCK, arguments: Vec::new() }
    }

    /// Appends the addresses of tensors.
    ///
    /// # Errors
    /// As [`pointer()`].
    pub fn tensors<'a>(self, tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<Self> {
        tensors.into_iter().try_fold(self, |launch, tensor| Ok(launch.arg(pointer(tensor)?)))
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<Arg>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}
