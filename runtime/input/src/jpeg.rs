//! What a JPEG file's segments tell without decoding it: whether it is whole, its size, its number of components.
//! The decoder is lenient (it fills what is missing with grey), so completeness is checked here.
//! Marker codes: ITU-T T.81, table B.1.

const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// The frame of a JPEG file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JpegFrame {
    /// Columns, before any orientation is applied.
    pub width: u32,
    /// Rows, before any orientation is applied.
    pub height: u32,
    /// 1 for grey, 3 for colour, 4 for CMYK and YCCK.
    pub components: u8,
}

/// Reads the frame of a JPEG file from its header; `None` for what is no JPEG file or has no frame.
pub fn jpeg_frame(data: &[u8]) -> Option<JpegFrame> {
    if !data.starts_with(&[0xFF, 0xD8, 0xFF]) {
        return None;
    }
    let mut at = 2; // past the start-of-image marker
    loop {
        let (marker, next) = next_marker(data, at)?;
        at = match marker {
            EOI | SOS => return None,
            0x01 | 0xD0..=0xD8 => next,
            // SOF0 to SOF15 but for DHT, JPG and DAC: length, precision, lines, samples per line, components.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let &[_, _, _, h1, h0, w1, w0, components] = data.get(next..)?.first_chunk()?;
                let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                return Some(JpegFrame { width: side(w1, w0), height: side(h1, h0), components });
            }
            _ => next + usize::from(u16::from_be_bytes(*data.get(next..)?.first_chunk()?)).max(2),
        };
    }
}

/// True if the segments of a JPEG stream lead to its end-of-image marker.
///
/// Thumbnails inside APPn segments are skipped with their segment, so that a thumbnail's own end marker
/// does not count. Stray bytes between segments are tolerated, as libjpeg tolerates them.
pub(crate) fn reaches_end(data: &[u8]) -> bool {
    let mut at = 2; // past the start-of-image marker
    while let Some((marker, next)) = next_marker(data, at) {
        at = match marker {
            EOI => return true,
            // TEM, RSTn and a second SOI carry no length.
            0x01 | 0xD0..=0xD8 => next,
            _ => match data.get(next..next + 2) {
                Some(length) => next + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
                None => return false,
            },
        };
        if marker == SOS {
            at = end_of_scan(data, at);
        }
    }
    false
}

/// The next marker's code at or after `at`, and the position behind it.
fn next_marker(data: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += data.get(at..)?.iter().position(|&b| b == 0xFF)?;
        while *data.get(at)? == 0xFF {
            at += 1; // any number of fill bytes may precede the code
        }
        let code = data[at];
        at += 1;
        if code != 0 {
            return Some((code, at));
        }
    }
}

/// The position of the first marker after entropy-coded data, where FF00 is a stuffed byte and RSTn belong to it.
fn end_of_scan(data: &[u8], mut at: usize) -> usize {
    while let Some(found) = data.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) {
        at += found;
        match data.get(at + 1) {
            Some(0x00 | 0xD0..=0xD7) => at += 2,
            Some(0xFF) => at += 1,
            _ => return at,
        }
    }
    data.len()
}

#[cfg(test)]
mod tests {
    use super::{JpegFrame, jpeg_frame, reaches_end};

    #[test]
    fn the_frame_is_found_behind_other_segments() {
        let thumbnail = [0xFF, 0xD8, 0xFF, 0xE1, 0x00, 0x08, 0xFF, 0xC0, 0, 0, 0, 0];
        let frame = [0xFF, 0xC2, 0x00, 0x14, 8, 0x01, 0x02, 0x03, 0x04, 4];
        let data = [&thumbnail[..], &frame[..]].concat();
        assert_eq!(jpeg_frame(&data), Some(JpegFrame { width: 0x304, height: 0x102, components: 4 }));
        for length in 0..data.len() {
            assert_eq!(jpeg_frame(&data[..length]), None, "cut at {length}");
        }
        assert_eq!(jpeg_frame(b"\x89PNG"), None);
    }

    #[test]
    fn a_thumbnail_inside_an_app_segment_does_not_count() {
        let mut data = vec![0xFF, 0xD8, 0xFF, 0xE1, 0x00, 0x06, 0xFF, 0xD8, 0xFF, 0xD9];
        assert!(!reaches_end(&data));
        data.extend([0xFF, 0xDA, 0x00, 0x02, 0x12, 0xFF, 0x00, 0x34, 0xFF, 0xD3, 0x56]);
        assert!(!reaches_end(&data));
        data.extend([0xFF, 0xD9]);
        assert!(reaches_end(&data));
    }

    #[test]
    fn every_cut_of_a_stream_is_noticed() {
        let data = [
            0xFF, 0xD8, 0xFF, 0xDB, 0x00, 0x04, 1, 2, 0xFF, 0xDA, 0x00, 0x03, 9, 0xAB, 0xFF, 0x00, 0x11,
            0xFF, 0xFF, 0xD9,
        ];
        assert!(reaches_end(&data));
        for length in 0..data.len() {
            assert!(!reaches_end(&data[..length]), "cut at {length}");
        }
    }
}
