//! As much of MATLAB's format, level 5, as `meta.mat` has: one compressed array of structures with texts and small numbers. (The
//! crates that there are for it read plain numbers only.)

use flate2::read::ZlibDecoder;
use std::{collections::HashMap, io::Read};

const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;
/// Classes of arrays.
const STRUCT: u8 = 2;
/// `meta.mat` has a megabyte.
const MAX_BYTES: u64 = 64 << 20;

/// A piece of data with its type.
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

/// Reads one element after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next(&mut self) -> Option<Element<'a>> {
        let word = |at: usize| Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?));
        let first = word(0)?;
        // Up to four bytes stand in the place of their own length.
        let (kind, begin, length): (u32, usize, usize) = match first >> 16 {
            0 => (first, 8, word(4)? as usize),
            short => (first & 0xffff, 4, short as usize),
        };
        let data = self.0.get(begin..begin.checked_add(length)?)?;
        let end = if begin == 4 || kind == COMPRESSED {
            (begin + length).max(8)
        } else {
            (begin + length).next_multiple_of(8)
        };
        self.0 = self.0.get(end.min(self.0.len())..)?;
        Some(Element { kind, data })
    }
}

/// An array: its class, its numbers of rows and columns, and what follows.
struct Matrix<'a> {
    class: u8,
    count: usize,
    rest: Elements<'a>,
}

impl<'a> Matrix<'a> {
    fn read(element: &Element<'a>) -> Option<Self> {
        if element.kind != MATRIX {
            return None;
        }
        let mut rest = Elements(element.data);
        let class = *rest.next()?.data.first()?;
        let sides = rest.next()?;
        let sides = sides.data.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
        let count = sides.fold(1usize, usize::saturating_mul);
        // Its name.
        rest.next()?;
        Some(Self { class, count, rest })
    }

    /// The numbers in it, or the codes of its characters.
    fn numbers(mut self) -> Option<Vec<f64>> {
        let Element { kind, data } = self.rest.next()?;
        let of = |bytes: usize, number: fn(&[u8]) -> f64| data.chunks_exact(bytes).map(number).collect();
        let numbers: Vec<f64> = match kind {
            1 => of(1, |b| f64::from(b[0] as i8)),
            2 | 16 => of(1, |b| f64::from(b[0])),
            3 => of(2, |b| f64::from(i16::from_le_bytes([b[0], b[1]]))),
            4 | 17 => of(2, |b| f64::from(u16::from_le_bytes([b[0], b[1]]))),
            5 => of(4, |b| f64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            6 => of(4, |b| f64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            9 => of(8, |b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])),
            _ => return None,
        };
        Some(numbers)
    }
}

/// WordNet ids by `ILSVRC2012_ID`, of every synset in the file.
///
/// # Errors
/// Why it is not such a file.
pub(super) fn synsets(bytes: &[u8]) -> Result<HashMap<u32, String>, String> {
    let rest = bytes.get(128..).filter(|_| bytes.starts_with(b"MATLAB 5.0") && bytes.get(126..128) == Some(b"IM"));
    let mut elements = Elements(rest.ok_or("not a MATLAB file of level 5")?);
    while let Some(element) = elements.next() {
        let mut plain = Vec::new();
        let whole = if element.kind == COMPRESSED {
            let inflated = ZlibDecoder::new(element.data).take(MAX_BYTES).read_to_end(&mut plain);
            inflated.map_err(|e| format!("damaged: {e}"))?;
            Elements(&plain).next()
        } else {
            Some(element)
        };
        if let Some(found) = whole.and_then(|element| of_structures(&element)) {
            return Ok(found);
        }
    }
    Err("there are no synsets with ILSVRC2012_ID and WNID in it".into())
}

fn of_structures(element: &Element<'_>) -> Option<HashMap<u32, String>> {
    let mut matrix = Matrix::read(element)?;
    if matrix.class != STRUCT {
        return None;
    }
    let width = matrix.rest.next()?;
    let width = u32::from_le_bytes(width.data.get(..4)?.try_into().ok()?) as usize;
    let names = matrix.rest.next()?;
    let fields: Vec<&[u8]> =
        names.data.chunks_exact(width.max(1)).map(|name| name.split(|&b| b == 0).next().unwrap_or_default()).collect();
    let at = |name: &str| fields.iter().position(|field| *field == name.as_bytes());
    let (id, wnid) = (at("ILSVRC2012_ID")?, at("WNID")?);
    let mut found = HashMap::new();
    for _ in 0..matrix.count {
        let (mut number, mut text) = (None, None);
        for field in 0..fields.len() {
            let cell = Matrix::read(&matrix.rest.next()?)?;
            if field == id {
                number = cell.numbers()?.first().copied();
            } else if field == wnid {
                text = Some(cell.numbers()?.into_iter().filter_map(|code| char::from_u32(code as u32)).collect());
            }
        }
        found.insert(number? as u32, text?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_such_file_is_refused() {
        for bytes in [&b""[..], b"MATLAB 5.0", &[0; 200]] {
            assert!(synsets(bytes).is_err());
        }
        let mut header = b"MATLAB 5.0 MAT-file".to_vec();
        header.resize(124, b' ');
        header.extend(b"\x00\x01IM");
        assert!(synsets(&header).unwrap_err().contains("no synsets"));
        header.extend([15, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4]);
        assert!(synsets(&header).unwrap_err().starts_with("damaged"));
    }
}
