//! What was found so far, on the disk: a scan that was stopped, or is made again after some files have changed, looks at the others only.
//!
//! One record per file, appended as they come. Each ends with a checksum, so what a kill cuts off is noticed and left out. As with every
//! cache, a disk that is full or cannot be written is no reason to stop.

use super::facts::{Facts, Look};
use crate::{
    cache::Key,
    decode::{Colours, Format},
    files::Entry,
};
use image::metadata::Orientation;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

/// Names a file as it is now: its path, size and times.
pub type Stamp = [u8; 16];

const VERSION: &[u8; 16] = b"alexnode scan 1\n";
const COLOURS: [Colours; 3] = [Colours::Grey, Colours::Rgb, Colours::Cmyk];
/// Longer reasons are cut to so many characters.
const MOST: usize = 300;

/// The stamp of `entry`.
pub fn stamp(entry: &Entry) -> Stamp {
    let numbers = [entry.size, entry.at[0], entry.at[1]].map(u64::to_le_bytes);
    let key = Key::of([entry.path.as_os_str().as_encoded_bytes(), numbers.as_flattened()]);
    let mut stamp = [0; 16];
    stamp.copy_from_slice(&key.bytes()[..16]);
    stamp
}

/// The file; `None` where there is no place for one.
pub struct Journal {
    file: Option<File>,
}

impl Journal {
    /// Opens the journal at `path` and gives what it says about `stamps`. Records of other files are dropped from it.
    pub fn open(path: Option<&Path>, stamps: &HashMap<Stamp, u32>) -> (Self, Vec<(u32, Look)>) {
        let Some(path) = path else { return (Self { file: None }, Vec::new()) };
        let known = read(path, stamps);
        let file = rewrite(path, stamps, &known).ok();
        (Self { file }, known)
    }

    /// Adds what was found about some files. What could not be read is not kept.
    pub fn append<'a>(&mut self, looks: impl Iterator<Item = (Stamp, &'a Look)>) {
        let Some(file) = &mut self.file else { return };
        let mut bytes = Vec::new();
        looks.for_each(|(stamp, look)| encode(&stamp, look, &mut bytes));
        if file.write_all(&bytes).is_err() {
            self.file = None;
        }
    }
}

fn read(path: &Path, stamps: &HashMap<Stamp, u32>) -> Vec<(u32, Look)> {
    let mut known = Vec::new();
    let Ok(file) = File::open(path) else { return known };
    let mut file = BufReader::new(file);
    let mut version = [0; 16];
    if file.read_exact(&mut version).is_err() || &version != VERSION {
        return known;
    }
    while let Some((stamp, look)) = decode(&mut file) {
        if let Some(&index) = stamps.get(&stamp) {
            known.push((index, look));
        }
    }
    known
}

/// All anew, so that nothing that was cut off stands before what is appended.
fn rewrite(path: &Path, stamps: &HashMap<Stamp, u32>, known: &[(u32, Look)]) -> io::Result<File> {
    let folder: PathBuf = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    fs::create_dir_all(&folder)?;
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    let mut bytes = VERSION.to_vec();
    let names: HashMap<u32, &Stamp> = stamps.iter().map(|(stamp, index)| (*index, stamp)).collect();
    for (index, look) in known {
        encode(names[index], look, &mut bytes);
        if bytes.len() > 1 << 20 {
            file.write_all(&bytes)?;
            bytes.clear();
        }
    }
    file.write_all(&bytes)?;
    Ok(file.persist(path)?)
}

fn encode(stamp: &Stamp, look: &Look, out: &mut Vec<u8>) {
    let from = out.len();
    out.extend_from_slice(stamp);
    match look {
        Look::Usable(facts) => {
            let colours = COLOURS.iter().position(|c| *c == facts.colours).unwrap_or_default() as u8;
            let format = Format::ALL.iter().position(|f| *f == facts.format).unwrap_or_default() as u8;
            out.extend_from_slice(&[1, format, colours, facts.orientation.to_exif(), u8::from(facts.print.is_some())]);
            out.extend_from_slice(&facts.content);
            out.extend(facts.print.unwrap_or_default().into_iter().flat_map(u64::to_le_bytes));
            out.extend([facts.width, facts.height].into_iter().flat_map(u32::to_le_bytes));
        }
        Look::Bad(reason) => {
            let reason: String = reason.chars().take(MOST).collect();
            out.push(0);
            out.extend((reason.len() as u16).to_le_bytes());
            out.extend_from_slice(reason.as_bytes());
        }
        Look::Unread(_) => return out.truncate(from),
    }
    let sum = Sha256::digest(&out[from..]);
    out.extend_from_slice(&sum[..4]);
}

fn decode(file: &mut impl Read) -> Option<(Stamp, Look)> {
    let mut seen = Vec::new();
    let mut take = |count: usize| -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        file.read_exact(&mut bytes).ok()?;
        seen.extend_from_slice(&bytes);
        Some(bytes)
    };
    let stamp = take(16)?.try_into().ok()?;
    let look = if take(1)? == [1] {
        let [format, colours, turned, print] = take(4)?.try_into().ok()?;
        let content = take(16)?.try_into().ok()?;
        let mut word = || Some(u64::from_le_bytes(take(8)?.try_into().ok()?));
        let prints = [word()?, word()?];
        let sides = word()?;
        Look::Usable(Facts {
            content,
            print: (print == 1).then_some(prints),
            width: sides as u32,
            height: (sides >> 32) as u32,
            format: *Format::ALL.get(usize::from(format))?,
            colours: *COLOURS.get(usize::from(colours))?,
            orientation: Orientation::from_exif(turned)?,
        })
    } else {
        let length = u16::from_le_bytes(take(2)?.try_into().ok()?);
        Look::Bad(String::from_utf8(take(length.into())?).ok()?)
    };
    let sum = Sha256::digest(&seen);
    let mut expected = [0; 4];
    file.read_exact(&mut expected).ok()?;
    (sum[..4] == expected).then_some((stamp, look))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(n: u8) -> Look {
        Look::Usable(Facts {
            content: [n; 16],
            print: n.is_multiple_of(2).then_some([u64::from(n) << 40, 3]),
            width: 640 + u32::from(n),
            height: 480,
            format: Format::ALL[usize::from(n) % 5],
            colours: COLOURS[usize::from(n) % 3],
            orientation: Orientation::from_exif(1 + n % 8).unwrap(),
        })
    }

    #[test]
    fn what_was_found_is_read_again_up_to_where_it_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/journal");
        let stamps: HashMap<Stamp, u32> = (0..20).map(|n| ([n; 16], u32::from(n))).collect();
        let mut looks: Vec<Look> = (0..18).map(facts).collect();
        looks.push(Look::Bad("wéird".repeat(300)));
        looks.push(Look::Unread("not kept".into()));
        let (mut journal, known) = Journal::open(Some(&path), &stamps);
        assert!(known.is_empty());
        journal.append(looks.iter().enumerate().map(|(n, look)| ([n as u8; 16], look)));
        let (_, known) = Journal::open(Some(&path), &stamps);
        assert_eq!(known.len(), 19);
        assert!(known[..18].iter().all(|(n, look)| *look == looks[*n as usize]));
        assert!(matches!(&known[18].1, Look::Bad(reason) if reason.chars().count() == MOST));
        // Files that are no longer there, or have changed, are forgotten.
        let fewer: HashMap<Stamp, u32> = (3..9).map(|n| ([n; 16], u32::from(n) + 100)).collect();
        let (mut journal, known) = Journal::open(Some(&path), &fewer);
        assert_eq!(known.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (103..109).collect::<Vec<_>>());
        let whole = fs::metadata(&path).unwrap().len();
        journal.append([([200; 16], &facts(1))].into_iter());
        // Cut off in the middle of the last record, then gone on with.
        File::options().write(true).open(&path).unwrap().set_len(whole + 30).unwrap();
        let (mut journal, known) = Journal::open(Some(&path), &fewer);
        assert_eq!((known.len(), fs::metadata(&path).unwrap().len()), (6, whole));
        journal.append([([3; 16], &facts(7))].into_iter());
        let (_, known) = Journal::open(Some(&path), &fewer);
        assert_eq!(known[6], (103, facts(7)));
        fs::write(&path, "something else").unwrap();
        assert!(Journal::open(Some(&path), &fewer).1.is_empty());
    }

    #[test]
    fn no_place_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [None, Some(file.path().join("journal"))] {
            let (mut journal, known) = Journal::open(path.as_deref(), &HashMap::new());
            journal.append([([3; 16], &facts(7))].into_iter());
            assert!(known.is_empty());
        }
    }
}
