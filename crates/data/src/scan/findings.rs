//! What was found about every file of a data set, in little more than its hash and print for each.

use super::{Finding, Hash};
use crate::{
    cache::{Cache, Key},
    print::Print,
};
use std::collections::BTreeMap;

/// What was seen of a file, as it is kept: its hash, whether it has a print, the print.
type Seen = [u8; SEEN_BYTES];
const HASH: usize = size_of::<Hash>();
const SEEN_BYTES: usize = HASH + 1 + size_of::<Print>();

fn seen(hash: Hash, print: Option<Print>) -> Seen {
    let mut seen = [0; SEEN_BYTES];
    seen[..HASH].copy_from_slice(&hash);
    seen[HASH] = u8::from(print.is_some());
    for (to, word) in seen[HASH + 1..].chunks_exact_mut(8).zip(print.unwrap_or_default()) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    seen
}

fn print(seen: &Seen) -> Option<Print> {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| seen[at + i]));
    (seen[HASH] == 1).then(|| [word(HASH + 1), word(HASH + 9)])
}

/// Findings in the order of the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Findings {
    count: usize,
    /// That of all files, or nothing. Zeros stand for the hash of a file that could not be read.
    seen: Vec<Seen>,
    /// What is wrong with those that are not in order, and whether they could not be read.
    bad: BTreeMap<u32, (Option<String>, bool)>,
}

impl Findings {
    /// Adds that of the next file. All have hashes or none has; unread ones have none.
    pub fn push(&mut self, finding: Finding) {
        self.count += 1;
        if finding.hash.is_some() || !self.seen.is_empty() {
            // Those before it could not be read.
            self.seen.resize(self.count, [0; SEEN_BYTES]);
        }
        self.set(self.count - 1, finding);
    }

    /// Replaces that of file `i`.
    pub fn set(&mut self, i: usize, finding: Finding) {
        if let Some(hash) = finding.hash {
            self.seen.resize(self.count, [0; SEEN_BYTES]);
            self.seen[i] = seen(hash, finding.print);
        }
        self.bad.remove(&(i as u32));
        if finding.bad.is_some() || finding.unread {
            self.bad.insert(i as u32, (finding.bad, finding.unread));
        }
    }

    /// The hash of file `i`, where it was asked for and the file could be read.
    pub fn hash(&self, i: usize) -> Option<Hash> {
        self.seen(i)?.first_chunk().copied()
    }

    fn seen(&self, i: usize) -> Option<&Seen> {
        let unread = matches!(self.bad.get(&(i as u32)), Some((_, true)));
        self.seen.get(i).filter(|_| !unread)
    }

    /// Why file `i` cannot be used.
    pub fn reason(&self, i: usize) -> Option<&str> {
        self.bad.get(&(i as u32))?.0.as_deref()
    }

    /// All files that cannot be used, and why.
    pub fn bad(&self) -> impl Iterator<Item = (usize, &str)> {
        self.bad.iter().filter_map(|(&i, (reason, _))| Some((i as usize, reason.as_deref()?)))
    }

    /// The files that could not be read.
    pub fn unread(&self) -> Vec<u32> {
        self.bad.iter().filter(|(_, (_, unread))| *unread).map(|(&i, _)| i).collect()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Finding> + '_ {
        (0..self.count).map(|i| {
            let (bad, unread) = self.bad.get(&(i as u32)).cloned().unwrap_or_default();
            Finding { hash: self.hash(i), print: self.seen(i).and_then(print), bad, unread }
        })
    }

    /// Of so many files, the first ones.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Keeps them in `cache`: the count, hashes and prints, then the rest as JSON.
    pub fn keep(&self, cache: &Cache, kind: &str, key: &Key) {
        let bad = serde_json::to_vec(&self.bad).unwrap_or_default();
        cache.store_pieces(kind, key, &[&(self.count as u64).to_le_bytes(), self.seen.as_flattened(), &bad]);
    }

    /// From what was kept, with hashes or without; `None` where it is something else.
    pub fn from_bytes(bytes: &[u8], hashed: bool) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let seen_bytes = if hashed { count.checked_mul(SEEN_BYTES)? } else { 0 };
        let (seen, bad) = rest.split_at_checked(seen_bytes)?;
        Some(Self { count, seen: seen.as_chunks().0.to_vec(), bad: serde_json::from_slice(bad).ok()? })
    }
}

impl Extend<Finding> for Findings {
    fn extend<T: IntoIterator<Item = Finding>>(&mut self, findings: T) {
        findings.into_iter().for_each(|finding| self.push(finding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(findings: &Findings) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (cache, key) = (Cache::new(Some(dir.path())), Key::of([]));
        findings.keep(&cache, "scan", &key);
        cache.load("scan", &key).unwrap()
    }

    #[test]
    fn findings_come_back_as_they_were() {
        let good =
            |n| Finding { hash: Some([n; 16]), print: (n != 1).then_some([u64::from(n), 7]), bad: None, unread: false };
        let bad = Finding { bad: Some("cut off".into()), ..good(4) };
        let gone = Finding { bad: Some("cannot be read".into()), ..Finding::UNREAD };
        let all = [gone.clone(), good(1), bad, Finding::UNREAD, good(0), gone];
        let mut findings = Findings::default();
        findings.extend(all.clone());
        assert_eq!(findings.iter().collect::<Vec<_>>(), all);
        assert_eq!(findings.unread(), [0, 3, 5]);
        assert_eq!(findings.bad().map(|(i, _)| i).collect::<Vec<_>>(), [0, 2, 5]);
        assert_eq!((findings.reason(2), findings.reason(3)), (Some("cut off"), None));
        let bytes = kept(&findings);
        assert_eq!(Findings::from_bytes(&bytes, true).as_ref(), Some(&findings));
        for broken in [&bytes[..5], &bytes[..40], &[&[7][..], &bytes[1..]].concat(), &[255; 99]] {
            assert_eq!(Findings::from_bytes(broken, true), None);
        }
        // What could be read later.
        findings.set(0, good(9));
        assert_eq!((findings.hash(0), findings.hash(3), findings.unread().len()), (Some([9; 16]), None, 2));
    }

    #[test]
    fn without_hashes_a_file_that_is_in_order_takes_no_room() {
        let plain = Finding { hash: None, print: None, bad: None, unread: false };
        let mut findings = Findings::default();
        findings.extend(std::iter::repeat_n(plain.clone(), 1000));
        findings.push(Finding { bad: Some("empty".into()), ..plain.clone() });
        let bytes = kept(&findings);
        assert!(bytes.len() < 40, "{}", bytes.len());
        assert_eq!(Findings::from_bytes(&bytes, false), Some(findings.clone()));
        assert_eq!((findings.iter().count(), findings.iter().nth(999)), (1001, Some(plain)));
    }
}
