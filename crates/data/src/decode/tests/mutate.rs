//! Damage: a picture's bytes, changed in ways that a number draws.

/// Draws numbers: splitmix64.
pub struct Draw(pub u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Below `n`; 0 where there is nothing below it.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}

/// Values at which programs stumble.
const ODD: [u32; 12] = [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/// `file` with one to four changes; `other` gives a part of itself now and then.
pub fn mutated(file: &[u8], other: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + draw.below(4) {
        change(&mut bytes, other, draw);
    }
    if draw.below(4) > 0 {
        mend_png(&mut bytes);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], draw: &mut Draw) {
    // Every other change is near the beginning, where the headers are.
    let length = if draw.below(2) == 0 { bytes.len() } else { bytes.len().min(200) };
    let at = draw.below(length);
    let end = (at + 1 + draw.below(40)).min(bytes.len());
    match draw.below(9) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
        3 => bytes[at..end].iter_mut().for_each(|byte| *byte = draw.byte()),
        4 => {
            let from = draw.below(other.len());
            let part = &other[from..other.len().min(from + 1 + draw.below(400))];
            drop(bytes.splice(at..end, part.iter().copied()));
        }
        5 => {
            let (value, width) = (ODD[draw.below(ODD.len())], [1, 2, 4][draw.below(3)]);
            let [big, little] = [value.to_be_bytes(), value.to_le_bytes()];
            let value = if draw.below(2) == 0 { &big[4 - width..] } else { &little[..width] };
            let room = width.min(bytes.len() - at);
            bytes[at..at + room].copy_from_slice(&value[..room]);
        }
        6 => bytes.extend_from_slice(&other[..draw.below(other.len())]),
        _ if bytes.is_empty() => {}
        7 => bytes[at] = draw.byte(),
        _ => bytes[at] ^= 1 << draw.below(8),
    }
}

/// Makes the checksums of a PNG's chunks right again, so that damage gets past them.
fn mend_png(bytes: &mut [u8]) {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return;
    }
    let mut at = 8;
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let end = at + 8 + u32::from_be_bytes(*length) as usize;
        let Some(sum) = bytes.get(at + 4..end).map(crc) else { return };
        let Some(place) = bytes.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}
