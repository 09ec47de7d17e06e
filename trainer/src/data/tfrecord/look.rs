//! A look at records without reading all of them.

use tallow_tensorflow::example::Example;

use super::index::Index;
use crate::error::Result;

/// Enough of a record to hold all but the image, which comes last where keys are sorted.
const PEEK: usize = 4096;
/// Records that are looked at to see what is true of all.
pub const LOOKED_AT: usize = 256;

/// Some features of a record without reading all of it, if they come first.
pub fn look<T>(
    index: &Index,
    record: usize,
    buffer: &mut Vec<u8>,
    wanted: impl Fn(&Example<'_>) -> Option<T>,
) -> Result<Option<T>> {
    let (start, whole) = index.peek(record, PEEK, buffer)?;
    let found = wanted(&Example::parse_start(start));
    if found.is_some() || whole {
        return Ok(found);
    }
    Ok(Example::parse(index.read(record, buffer)?).ok().and_then(|example| wanted(&example)))
}

/// Some records from all over the shards.
pub fn some(index: &Index) -> impl Iterator<Item = usize> + use<> {
    (0..index.len()).step_by(index.len().div_ceil(LOOKED_AT).max(1))
}
