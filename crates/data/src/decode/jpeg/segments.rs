//! What a JPEG says about itself before its first scan, without decoding anything.

use super::super::Reason;

/// The segments of a JPEG up to its first scan: the mark and the body of each. Bytes between segments are skipped, as decoders do.
pub struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.get(2..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let at = self.rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
            let mark = self.rest[at + 1];
            self.rest = &self.rest[at + 2..];
            // These stand alone.
            if matches!(mark, 0x01 | 0xd0..=0xd9) {
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*self.rest.first_chunk()?));
            // Of one that is cut off, what there is.
            let (segment, after) = self.rest.split_at(length.max(2).min(self.rest.len()));
            self.rest = if mark == SCAN { &[] } else { after };
            return Some((mark, &segment[2..]));
        }
    }
}

const SCAN: u8 = 0xda;

/// Whether the end mark comes after the beginning of the first scan: a preview in the header has marks of its own, but what follows the
/// scan belongs to the picture.
pub fn has_end(bytes: &[u8]) -> bool {
    let scan = Segments::of(bytes).find(|&(mark, _)| mark == SCAN);
    scan.is_some_and(|(_, body)| {
        let from = body.as_ptr() as usize - bytes.as_ptr() as usize;
        bytes[from..].windows(2).rev().any(|pair| pair == b"\xff\xd9")
    })
}

/// How many scans there are at most: inside of one, no such mark can stand.
pub fn scans(bytes: &[u8]) -> usize {
    bytes.windows(2).filter(|pair| pair[0] == 0xff && pair[1] == SCAN).count()
}

/// How a JPEG is laid out.
#[derive(Debug)]
pub struct Frame {
    /// Whether each scan only adds to what the others have given.
    pub progressive: bool,
    /// Pixels of a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// Horizontal and vertical sampling factor of each component.
    sampling: Vec<(u8, u8)>,
    /// Components in the first scan.
    first_scan: u8,
}

impl Frame {
    /// From the frame header before the first scan.
    pub fn of(bytes: &[u8]) -> Result<Self, Reason> {
        let mut frame = None;
        for (mark, body) in Segments::of(bytes) {
            match mark {
                0xc0..=0xc2 => frame = Self::parse(mark == 0xc2, body),
                0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    return Err("lossless, hierarchical and arithmetic JPEGs are not supported".into());
                }
                SCAN => {
                    let first_scan = *body.first().ok_or("damaged JPEG: it ends in the header of its scan")?;
                    let frame = frame.ok_or("damaged JPEG: no frame header before its scan")?;
                    return Ok(Self { first_scan, ..frame });
                }
                _ => {}
            }
        }
        Err("damaged JPEG: it ends before its pixels".into())
    }

    fn parse(progressive: bool, body: &[u8]) -> Option<Self> {
        let ([_, h0, h1, w0, w1, count], components) = body.split_first_chunk()?;
        let sampling: Vec<_> =
            components.chunks_exact(3).take(usize::from(*count)).map(|c| (c[1] >> 4, c[1] & 15)).collect();
        let [height, width] = [[*h0, *h1], [*w0, *w1]].map(u16::from_be_bytes);
        (sampling.len() == usize::from(*count)).then_some(Self { progressive, width, height, sampling, first_scan: 0 })
    }

    /// How many components it has.
    pub fn components(&self) -> usize {
        self.sampling.len()
    }

    /// Whether every decoder agrees about it: all components in each scan or all over many (progressive), and no component sampled more
    /// finely than the first or by a third.
    pub fn is_plain(&self) -> bool {
        let &[(h, v), ..] = &self.sampling[..] else { return true };
        let whole = self.progressive || usize::from(self.first_scan) == self.sampling.len();
        let power = |n: u8| matches!(n, 1 | 2 | 4);
        whole && self.sampling.iter().all(|&(a, b)| power(a) && power(b) && a <= h && b <= v)
    }

    /// Whether it is too large for its edges to matter, where zune-jpeg spreads chroma in ways of its own.
    pub fn is_large(&self) -> bool {
        self.width.min(self.height) >= 64
    }
}
