//! What stands before the scan.

use super::super::segments::Segments;

/// What a decoder has to know. All of it is usual.
pub struct Headers<'a> {
    pub width: usize,
    pub height: usize,
    pub components: [Component; 3],
    /// DC and AC tables by number, as they stand in the file: how many codes of each length, then what they mean.
    pub tables: [[Option<&'a [u8]>; 2]; 2],
    /// What follows the header of the scan.
    pub scan: &'a [u8],
}

/// A component of the picture.
#[derive(Clone, Copy)]
pub struct Component {
    /// Blocks of a unit, side by side and one below the other.
    pub across: usize,
    pub down: usize,
    /// In the order of the coefficients.
    pub quantisation: [i32; 64],
    /// Number of its DC and its AC table.
    pub tables: [usize; 2],
}

impl<'a> Headers<'a> {
    /// `None` where anything is not as usual.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut quantisations = [None; 4];
        let mut tables = [[None; 2]; 2];
        let mut frame = None;
        let mut end = 2;
        for (mark, body) in Segments::of(bytes) {
            // Nothing between segments, and each as long as it says.
            let begin = body.as_ptr() as usize - bytes.as_ptr() as usize;
            let length = usize::from(u16::from_be_bytes(*bytes.get(end + 2..)?.first_chunk()?));
            if begin != end + 4 || body.len() + 2 != length {
                return None;
            }
            end = begin + body.len();
            match mark {
                0xc0 if frame.is_none() => frame = Some(body),
                0xc0..=0xc3 | 0xc5..=0xcf => return None,
                0xc4 => Self::read_tables(body, &mut tables)?,
                0xdb => read_quantisations(body, &mut quantisations)?,
                // Restarts and late heights.
                0xdc | 0xdd => return None,
                // Adobe's mark of YCbCr.
                0xee if body.get(11) != Some(&1) => return None,
                0xda => {
                    let ([8, h0, h1, w0, w1, 3], components) = frame?.split_first_chunk()? else { return None };
                    let [height, width] = [[*h0, *h1], [*w0, *w1]].map(|side| usize::from(u16::from_be_bytes(side)));
                    let ([3, scan @ .., 0, 63, 0], []) = body.split_first_chunk::<10>()? else { return None };
                    let components: &[u8; 9] = components.try_into().ok()?;
                    let identifiers = [0, 3, 6].map(|at| components[at]);
                    if !matches!(identifiers, [0, 1, 2] | [1, 2, 3]) || identifiers != [0, 2, 4].map(|at| scan[at]) {
                        return None;
                    }
                    let component = |c: usize| {
                        let [sampling, quantisation] = [components[3 * c + 1], components[3 * c + 2]];
                        let (across, down) = match (c, sampling) {
                            (0, 0x11 | 0x21 | 0x22) | (_, 0x11) => (sampling >> 4, sampling & 15),
                            _ => return None,
                        };
                        let numbers = [scan[2 * c + 1] >> 4, scan[2 * c + 1] & 15].map(usize::from);
                        let given =
                            numbers.iter().zip(&tables).all(|(&n, tables)| tables.get(n).is_some_and(Option::is_some));
                        let quantisation = (*quantisations.get(usize::from(quantisation))?)?;
                        let (across, down) = (usize::from(across), usize::from(down));
                        given.then_some(Component { across, down, quantisation, tables: numbers })
                    };
                    let components = [component(0)?, component(1)?, component(2)?];
                    let scan = &bytes[end..];
                    return Some(Self { width, height, components, tables, scan });
                }
                _ => {}
            }
        }
        None
    }

    /// Units beside and below each other.
    pub fn units(&self) -> (usize, usize) {
        let [Component { across, down, .. }, ..] = self.components;
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    fn read_tables(mut body: &'a [u8], tables: &mut [[Option<&'a [u8]>; 2]; 2]) -> Option<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let count: usize = rest.get(..16)?.iter().map(|&n| usize::from(n)).sum();
            let (table, rest) = rest.split_at_checked(16 + count)?;
            // What is no size of a difference makes other decoders refuse the file.
            if kind >> 4 == 0 && table[16..].iter().any(|&size| size > 15) {
                return None;
            }
            *tables.get_mut(usize::from(kind >> 4))?.get_mut(usize::from(kind & 15))? = Some(table);
            body = rest;
        }
        Some(())
    }
}

fn read_quantisations(mut body: &[u8], quantisations: &mut [Option<[i32; 64]>; 4]) -> Option<()> {
    while let Some((&kind, rest)) = body.split_first() {
        // Sixteen bits a step have numbers from 16 on.
        let (steps, rest) = rest.split_first_chunk::<64>()?;
        *quantisations.get_mut(usize::from(kind))? = Some(steps.map(i32::from));
        body = rest;
    }
    Some(())
}
