//! Many tensors in one launch: what is done to each is a row of a table on the device.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::launch::{Arg, Launch, Source, Variant};
use crate::memory::pointer;
use crate::run;

/// Elements that a block takes, `CHUNK` in `table.cu`.
const CHUNK: usize = 16_384;
/// Bytes of a row.
const ROW: usize = 88;

/// Tensors of as many elements each, and what else a kernel needs of them: `Row` in `table.cu`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Their addresses, in the kernel's order, 0 for none.
    pub tensors: [u64; 8],
    /// Elements of each.
    pub elements: usize,
    /// Numbers of the kernel's own.
    pub numbers: [f32; 2],
    /// A place in a vector of the kernel's own.
    pub slot: u32,
}

/// Rows on the device.
#[derive(Debug)]
pub struct Table {
    rows: Tensor,
    count: usize,
    blocks: usize,
}

impl Table {
    /// Sends rows to the device. Up to 64 KiB of them, 744 rows, nobody waits for: the driver takes a copy.
    ///
    /// # Errors
    /// Where the device has no room, or a tensor more than 2³² elements.
    pub fn new(rows: &[Row], device: &Device) -> Result<Self> {
        let (mut bytes, mut blocks) = (Vec::with_capacity(rows.len() * ROW), 0);
        for row in rows {
            let (Ok(elements), Ok(first)) = (u32::try_from(row.elements), u32::try_from(blocks)) else {
                bail!("a tensor of {} elements is too large for a table", row.elements)
            };
            row.tensors.iter().for_each(|address| bytes.extend(address.to_le_bytes()));
            [elements, first].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
            row.numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
            [row.slot, 0].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
            blocks += row.elements.div_ceil(CHUNK);
        }
        let length = bytes.len();
        Ok(Self { rows: Tensor::from_vec(bytes, length, device)?, count: rows.len(), blocks })
    }

    /// Blocks of a launch over all rows.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Launches a kernel over all rows, a block for each chunk; its first two parameters are the rows and their number.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(
        &self,
        source: &'static Source,
        kernel: &'static str,
        arguments: impl IntoIterator<Item = Arg>,
    ) -> Result<()> {
        self.launch(self.blocks, source, kernel, arguments)
    }

    /// As [`Self::run`], but one block goes through all rows.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run_once(
        &self,
        source: &'static Source,
        kernel: &'static str,
        arguments: impl IntoIterator<Item = Arg>,
    ) -> Result<()> {
        self.launch(self.blocks.min(1), source, kernel, arguments)
    }

    fn launch(
        &self,
        blocks: usize,
        source: &'static Source,
        kernel: &'static str,
        arguments: impl IntoIterator<Item = Arg>,
    ) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let launch = Launch::blocks(source, Variant::new(DType::F32, 1), kernel, [blocks as u32, 1, 1]);
        let launch = launch.arg(pointer(&self.rows)?).arg(self.count as i32);
        run(self.rows.device(), &arguments.into_iter().fold(launch, Launch::arg))
    }
}
