//! The JPEGs that nearly all photos are: baseline, Y, Cb and Cr in one scan, no restarts, chroma whole or halved.
//!
//! No library reads these fast enough for packs of small ones, so this does, with the pixels of zune-jpeg to the last bit. Whatever else
//! there is in a file, rare or damaged, is left to the libraries: `None`.
//!
//! | module | about |
//! |---|---|
//! | `headers` | what stands before the scan, and whether all of it is usual |
//! | `huffman` | bits to coefficients |
//! | `transform` | coefficients to samples |
//! | `colour` | samples to RGB |

mod colour;
mod headers;
mod huffman;
mod transform;

use headers::Headers;
use huffman::{Bits, Table};

/// Working memory.
#[derive(Default)]
pub struct Memory {
    /// Bits of the scan, without what is stuffed between them.
    scan: Vec<u8>,
    /// DC and AC tables by number.
    tables: [[Table; 2]; 2],
    /// Samples of each component, whole blocks.
    planes: [Plane; 3],
    chroma: colour::Rows,
}

impl Memory {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.scan.capacity() + self.planes.iter().map(|plane| plane.samples.capacity()).sum::<usize>()
    }
}

#[derive(Default)]
struct Plane {
    samples: Vec<u8>,
    /// Samples of a row.
    width: usize,
}

impl Plane {
    /// Makes room for so many blocks. What is in it stays, as all of it will be written.
    fn shape(&mut self, across: usize, down: usize) {
        self.width = 8 * across;
        self.samples.resize(64 * across * down, 0);
    }
    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.width..][..self.width]
    }
    fn rows(&self) -> usize {
        self.samples.len() / self.width
    }
}

/// Decodes to `width * height * 3` bytes, all of which it writes; where it gives nothing, they are anything.
pub fn decode(bytes: &[u8], width: usize, height: usize, memory: &mut Memory, out: &mut [u8]) -> Option<()> {
    let headers = Headers::of(bytes)?;
    if (headers.width, headers.height) != (width, height) || out.len() != 3 * width * height {
        return None;
    }
    for (kept, given) in memory.tables.iter_mut().flatten().zip(headers.tables.iter().flatten()) {
        if let Some(given) = given {
            kept.read(given)?;
        }
    }
    huffman::unstuff(headers.scan, &mut memory.scan)?;
    let (across, down) = headers.units();
    for (plane, component) in memory.planes.iter_mut().zip(&headers.components) {
        plane.shape(across * component.across, down * component.down);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
    {
        // SAFETY: the processor has the instructions.
        return unsafe { with_avx2(&headers, memory, out) };
    }
    any(&headers, memory, out, transform::inverse)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
fn with_avx2(headers: &Headers<'_>, memory: &mut Memory, out: &mut [u8]) -> Option<()> {
    any(headers, memory, out, |block, end, out, width| transform::avx2::inverse(block, end, out, width))
}

/// Inlined always, so that it is compiled for the instructions of each caller. `inverse` is [`transform::inverse`] or what gives the same.
#[inline(always)]
fn any(
    headers: &Headers<'_>,
    memory: &mut Memory,
    out: &mut [u8],
    inverse: impl Fn(&mut [i32; 64], usize, &mut [u8], usize),
) -> Option<()> {
    let Memory { scan, tables, planes, chroma } = memory;
    let (across, down) = headers.units();
    let mut bits = Bits::of(scan);
    let mut predictions = [0; 3];
    let mut block = [0; 64];
    let mut done = 0;
    for unit_row in 0..down {
        for unit in 0..across {
            for (c, component) in headers.components.iter().enumerate() {
                let [dc, ac] = [&tables[0][component.tables[0]], &tables[1][component.tables[1]]];
                let plane = &mut planes[c];
                for y in 0..component.down {
                    for x in 0..component.across {
                        let place =
                            8 * plane.width * (unit_row * component.down + y) + 8 * (unit * component.across + x);
                        let end = bits.block(dc, ac, &component.quantisation, &mut predictions[c], &mut block)?;
                        inverse(&mut block, end, &mut plane.samples[place..], plane.width);
                    }
                }
            }
        }
        if bits.overrun() {
            return None;
        }
        // The last row waits for the chroma below it.
        let luma = 8 * headers.components[0].down;
        let end = if unit_row + 1 == down { headers.height } else { luma * (unit_row + 1) - usize::from(luma > 8) };
        for (y, row) in (done..end).zip(out[3 * headers.width * done..].chunks_exact_mut(3 * headers.width)) {
            let subsampled = [headers.components[0].across > 1, luma > 8];
            colour::row(planes, subsampled, y, chroma, row);
        }
        done = end;
    }
    Some(())
}

#[cfg(test)]
mod tests;
