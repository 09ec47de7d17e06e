//! NumPy's file format, version 1.0 (numpy.lib.format): what `numpy.load` opens.

use std::io::{self, Write};

/// A number that a file can hold.
pub(super) trait Number: Copy {
    /// NumPy's name of the type, little-endian.
    const DESCR: &'static str;
    fn write(self, out: &mut impl Write) -> io::Result<()>;
}

impl Number for f32 {
    const DESCR: &'static str = "<f4";
    fn write(self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.to_le_bytes())
    }
}

impl Number for f64 {
    const DESCR: &'static str = "<f8";
    fn write(self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.to_le_bytes())
    }
}

/// Writes an array in row-major order.
pub(super) fn write<T: Number>(
    out: &mut impl Write,
    shape: &[usize],
    values: impl Iterator<Item = T>,
) -> io::Result<()> {
    let shape: String = shape.iter().map(|length| format!("{length},")).collect();
    let header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({shape}), }}", T::DESCR);
    // Magic, version, length and header together are a multiple of 64, filled up with blanks before the line's end.
    let before = 10;
    let length = (before + header.len() + 1).next_multiple_of(64) - before;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&u16::try_from(length).map_err(io::Error::other)?.to_le_bytes())?;
    out.write_all(format!("{header:<width$}\n", width = length - 1).as_bytes())?;
    values.into_iter().try_for_each(|value| value.write(out))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bytes_are_numpys() {
        let mut bytes = vec![];
        super::write(&mut bytes, &[2, 1], [1.0f32, -2.5].into_iter()).unwrap();
        // numpy.save(io.BytesIO(), numpy.array([[1], [-2.5]], numpy.float32)), but for the comma that ends the shape.
        let header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,1,), }";
        assert_eq!(&bytes[..header.len()], header);
        assert_eq!(bytes.len(), 128 + 8);
        assert_eq!(bytes[127], b'\n');
        assert_eq!(&bytes[128..], [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
        let mut scalar = vec![];
        super::write(&mut scalar, &[], [3.0f64].into_iter()).unwrap();
        assert_eq!(scalar.len(), 136);
        assert!(String::from_utf8_lossy(&scalar).contains("'<f8', 'fortran_order': False, 'shape': (), }"));
    }
}
