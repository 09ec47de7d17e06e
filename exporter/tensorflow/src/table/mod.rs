//! LevelDB's sorted table, uncompressed, as TensorFlow's bundle index uses it: blocks of prefix-compressed entries, an
//! index of the blocks, and a footer. Every block ends in a type byte and a masked CRC of both.

mod reader;
mod writer;

pub use reader::read_table;
pub use writer::TableWriter;

/// The file's last eight bytes, little-endian.
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// The footer: two handles, padding, the magic number.
const FOOTER: usize = 48;
/// After a block: its type, and the checksum of block and type.
const TRAILER: usize = 5;
/// The only type of block that is written.
const UNCOMPRESSED: u8 = 0;

/// Where a block is: first byte, and bytes without the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handle {
    offset: u64,
    size: u64,
}
