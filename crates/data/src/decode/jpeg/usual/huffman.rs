//! Bits of a scan to coefficients.

use memchr::memchr;

/// So many bits are looked up at once.
const LOOKED_UP: u32 = 11;
/// No block takes more bytes, so that reading past the end stays inside.
const PADDING: usize = 512;

/// Natural place of each coefficient of the order in which they are coded; beyond the last one nothing is kept.
const ORDER: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Copies the bits of a scan up to the end mark, without the zeros that are stuffed behind every 255. `None` where another mark comes first.
pub fn unstuff(mut scan: &[u8], bits: &mut Vec<u8>) -> Option<()> {
    bits.clear();
    loop {
        let at = memchr(0xff, scan)?;
        match scan.get(at + 1)? {
            0 => bits.extend_from_slice(&scan[..=at]),
            0xd9 => {
                bits.extend_from_slice(&scan[..at]);
                bits.resize(bits.len() + PADDING, 0);
                return Some(());
            }
            _ => return None,
        }
        scan = &scan[at + 2..];
    }
}

/// A Huffman table.
pub struct Table {
    /// As it stands in the file.
    text: Vec<u8>,
    /// By the next bits: codes that are not longer, 0 for others.
    codes: Box<[Code; 1 << LOOKED_UP]>,
    /// By the next bits, where they hold a code and its number: the number in the upper half, then how many coefficients on it lies, then the
    /// bits of both. 0 elsewhere.
    numbers: Box<[i32; 1 << LOOKED_UP]>,
    /// By length: what codes of it are less than, as sixteen bits, and what is to be added for the place of their symbols.
    long: [(u32, i32); 17],
}

impl Default for Table {
    fn default() -> Self {
        let empty = || vec![0; 1 << LOOKED_UP].try_into().expect("as long as it was made");
        let codes = vec![0; 1 << LOOKED_UP].try_into().expect("as long as it was made");
        Self { text: Vec::new(), codes, numbers: empty(), long: [(0, 0); 17] }
    }
}

/// What a code means. From the lowest byte on: its length, how many bits of a number follow, how many zeros come before it, and the length
/// of code and number.
type Code = u32;

const fn code(length: u32, symbol: u8) -> Code {
    let (zeros, size) = ((symbol >> 4) as u32, (symbol & 15) as u32);
    length | size << 8 | zeros << 16 | (length + size) << 24
}

impl Table {
    /// Takes what stands in a file. `None` where that is no set of codes.
    pub fn read(&mut self, text: &[u8]) -> Option<()> {
        if self.text == text {
            return Some(());
        }
        self.text.clear();
        let (counts, symbols) = text.split_first_chunk::<16>()?;
        self.codes.fill(0);
        let (mut next, mut first) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            next <<= 1;
            let count = usize::from(count);
            self.long[length as usize] = ((next + count as u32) << (16 - length), first as i32 - next as i32);
            // All ones is no code.
            if count > 0 && next + count as u32 >= 1 << length {
                return None;
            }
            for &symbol in symbols.get(first..first + count)? {
                if length <= LOOKED_UP {
                    let spread = LOOKED_UP - length;
                    let from = (next << spread) as usize;
                    self.codes[from..from + (1 << spread)].fill(code(length, symbol));
                }
                next += 1;
            }
            first += count;
        }
        for (bits, (number, &code)) in (0u64..).zip(self.numbers.iter_mut().zip(&*self.codes)) {
            let (length, size, zeros, both) = (code & 0xff, code >> 8 & 0xff, code >> 16 & 0xff, code >> 24);
            let known = size > 0 && both <= LOOKED_UP;
            let value = || self::number(bits << (64 - LOOKED_UP + length), size);
            *number = if known { value() << 16 | ((zeros + 1) << 8 | both) as i32 } else { 0 };
        }
        self.text.extend_from_slice(text);
        Some(())
    }

    /// The code that `buffer` begins with.
    #[inline(always)]
    fn find(&self, buffer: u64) -> Option<Code> {
        match self.codes[(buffer >> (64 - LOOKED_UP)) as usize] {
            0 => self.find_long(buffer),
            found => Some(found),
        }
    }

    #[cold]
    fn find_long(&self, buffer: u64) -> Option<Code> {
        let head = (buffer >> 48) as u32;
        let length = (LOOKED_UP + 1..=16).find(|&length| head < self.long[length as usize].0)?;
        let place = self.long[length as usize].1 + (head >> (16 - length)) as i32;
        Some(code(length, *self.text.get(16 + usize::try_from(place).ok()?)?))
    }
}

/// The number of `size` bits that `buffer` begins with: the lower half of them stands for negative ones.
#[inline(always)]
fn number(buffer: u64, size: u32) -> i32 {
    let bits = (buffer >> 1 >> (63 - size)) as i32;
    let negative = !(buffer as i64 >> 63) as i32;
    bits + (negative & (1 - (1 << size)))
}

/// A scan, read from its beginning.
pub struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, from the highest on.
    buffer: u64,
    /// How many of them are known.
    known: u32,
}

impl<'a> Bits<'a> {
    /// Of what [`unstuff`] gives.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, known: 0 }
    }

    /// Whether more has been read than there is.
    pub fn overrun(&self) -> bool {
        8 * self.at - self.known as usize > 8 * (self.bytes.len() - PADDING)
    }

    /// At least 56 bits are known then; `None` far beyond the end.
    #[inline(always)]
    fn fill(&mut self) -> Option<()> {
        let next = u64::from_be_bytes(*self.bytes.get(self.at..)?.first_chunk()?);
        self.buffer |= next >> self.known;
        self.at += ((63 - self.known) >> 3) as usize;
        self.known |= 56;
        Some(())
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.known -= bits;
    }

    /// Reads the coefficients of a block into `block`, which is all 0: how many there are, in their order, up to the last one that is not 0.
    #[inline(always)]
    pub fn block(
        &mut self,
        dc: &Table,
        ac: &Table,
        quantisation: &[i32; 64],
        prediction: &mut i32,
        block: &mut [i32; 64],
    ) -> Option<usize> {
        self.fill()?;
        let found = dc.find(self.buffer)?;
        // Differences have eleven bits at most.
        if found >> 16 & 0xff != 0 || found >> 8 & 0xff > 11 {
            return None;
        }
        *prediction += number(self.buffer << (found & 0xff), found >> 8 & 0xff);
        if prediction.unsigned_abs() > 1 << 11 {
            return None;
        }
        self.skip(found >> 24);
        block[0] = *prediction * quantisation[0];
        let mut k = 0;
        while k < 63 {
            self.fill()?;
            let both = ac.numbers[(self.buffer >> (64 - LOOKED_UP)) as usize];
            let value;
            if both != 0 {
                self.skip((both & 0xff) as u32);
                k += (both >> 8 & 0xff) as usize;
                value = both >> 16;
            } else {
                let found = ac.find(self.buffer)?;
                let (length, size, zeros) = (found & 0xff, found >> 8 & 0xff, found >> 16 & 0xff);
                if size == 0 {
                    self.skip(length);
                    if zeros < 15 {
                        break;
                    }
                    k += 16;
                    continue;
                }
                k += zeros as usize + 1;
                value = number(self.buffer << length, size);
                self.skip(found >> 24);
            }
            let place = *ORDER.get(k)?;
            block[usize::from(place & 63)] = value * quantisation[k & 63];
        }
        (k < 64).then_some(k + 1)
    }
}
