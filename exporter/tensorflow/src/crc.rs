//! The checksum of all of TensorFlow's containers: CRC-32C (Castagnoli), masked as LevelDB does so that the sum of
//! data that holds sums is no special case.

/// Added after the rotation.
const DELTA: u32 = 0xa282_ead8;

/// The masked CRC-32C of `data`.
pub fn masked(data: &[u8]) -> u32 {
    mask(crc32c::crc32c(data))
}

/// Masks a CRC-32C.
pub fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(DELTA)
}

/// The CRC-32C that was masked.
pub fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(DELTA).rotate_left(15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_standard_and_its_mask() {
        let crc = crc32c::crc32c(b"123456789");
        assert_eq!(crc, 0xe306_9283);
        assert_eq!(masked(b"123456789"), 0xc78a_b0e5);
        assert_eq!(unmask(0xc78a_b0e5), crc);
    }
}
