//! The automatic split: by the content of the files, so that it survives renaming, moving, adding files and running elsewhere, and
//! so that copies of one picture never end up on both sides.

use crate::{
    layout::{Item, enumerate},
    options::Split,
    scan::Findings,
};
use alexnode_core::{Error, Result};
use std::collections::HashSet;

type Hash = [u8; 32];

/// Says for every item which side it is on. A picture goes to val where its SHA-256, read as a fraction, lies below `fraction`; a class
/// that would be without val (or train) by that gives its smallest (largest) hash. Bad files follow their hash and count for nothing.
///
/// # Errors
/// `ERR_DATA` naming the classes which have fewer than two different usable pictures.
pub(crate) fn by_content(
    name: &str,
    items: &[Item],
    findings: &Findings,
    classes: &[String],
    fraction: f64,
) -> Result<Vec<Split>> {
    let mut usable: Vec<Vec<Hash>> = vec![Vec::new(); classes.len()];
    for (item, finding) in items.iter().zip(findings.iter()) {
        if let (Some(hash), None) = (finding.hash, &finding.bad) {
            usable[item.class as usize].push(hash);
        }
    }
    for hashes in &mut usable {
        hashes.sort_unstable();
        hashes.dedup();
    }
    let poor: Vec<&String> = classes.iter().zip(&usable).filter(|(_, h)| h.len() < 2).map(|(c, _)| c).collect();
    if !poor.is_empty() {
        return Err(too_few(name, &poor));
    }
    // Exceptions hold for a hash wherever it occurs, so that copies in other classes follow.
    let (mut to_val, mut to_train): (HashSet<Hash>, HashSet<Hash>) = Default::default();
    for hashes in &usable {
        if !hashes.iter().any(|h| below(h, fraction)) {
            to_val.insert(hashes[0]);
        }
        if hashes.iter().all(|h| below(h, fraction)) {
            to_train.insert(hashes[hashes.len() - 1]);
        }
    }
    let side = |hash: &Hash| {
        let val = (below(hash, fraction) || to_val.contains(hash)) && !to_train.contains(hash);
        if val { Split::Val } else { Split::Train }
    };
    // Copies across classes can undo an exception: then there is no split that keeps copies together.
    let torn = |side_of: Split| usable.iter().position(|hashes| !hashes.iter().any(|h| side(h) == side_of));
    if let Some(class) = torn(Split::Train).or_else(|| torn(Split::Val)) {
        return Err(too_few(name, &[&classes[class]]));
    }
    Ok(findings.iter().map(|f| f.hash.as_ref().map_or(Split::Train, side)).collect())
}

fn too_few(name: &str, classes: &[&String]) -> Error {
    Error::data(format!("{name}: too few different images to split off a validation set in: {}", enumerate(classes)))
        .hint("each class needs at least two different images (copies count once): one to learn from, one to be judged on")
}

fn below(hash: &Hash, fraction: f64) -> bool {
    let head = u64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
    // 53 bits, exact in f64.
    ((head >> 11) as f64) < fraction * (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{files::Entry, scan::Finding};
    use sha2::{Digest, Sha256};
    use std::path::Path;

    fn set(contents: &[(u32, &str)]) -> (Vec<Item>, Findings) {
        let item = |class| Item { class, entry: Entry { path: Path::new("x").into(), size: 1, ..Entry::default() } };
        let finding = |text: &str| Finding { hash: Some(Sha256::digest(text).into()), bad: None, unread: false };
        contents.iter().map(|&(class, text)| (item(class), finding(text))).unzip()
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("class{i}")).collect()
    }

    #[test]
    fn about_the_fraction_goes_to_val_and_additions_move_nothing() {
        let texts: Vec<String> = (0..4000).map(|i| i.to_string()).collect();
        let all: Vec<(u32, &str)> = texts.iter().enumerate().map(|(i, t)| (i as u32 % 2, t.as_str())).collect();
        let (items, findings) = set(&all);
        let whole = by_content("x", &items, &findings, &names(2), 0.1).unwrap();
        let val = whole.iter().filter(|s| **s == Split::Val).count();
        assert!((330..=470).contains(&val), "{val}");
        let part = by_content("x", &items[..3000], &set(&all[..3000]).1, &names(2), 0.1).unwrap();
        assert_eq!(part, whole[..3000]);
    }

    #[test]
    fn small_classes_have_both_sides_and_copies_stay_together() {
        for fraction in [0.01, 0.5, 0.99] {
            let (items, findings) = set(&[(0, "a"), (0, "b"), (0, "a"), (1, "c"), (1, "d"), (1, "c")]);
            let sides = by_content("x", &items, &findings, &names(2), fraction).unwrap();
            assert_eq!((sides[0], sides[3]), (sides[2], sides[5]));
            assert_ne!(sides[0], sides[1]);
            assert_ne!(sides[3], sides[4]);
        }
    }

    #[test]
    fn too_few_different_images_are_an_error() {
        let (items, mut findings) = set(&[(0, "a"), (0, "b"), (1, "c"), (1, "c")]);
        let error = by_content("photos", &items, &findings, &names(2), 0.1).unwrap_err();
        assert!(error.message().starts_with("photos: too few different images") && error.message().ends_with("class1"));
        findings.set(0, Finding { hash: findings.hash(0), bad: Some("damaged".into()), unread: false });
        let error = by_content("photos", &items, &findings, &names(2), 0.1).unwrap_err();
        assert!(error.message().ends_with("class0, class1"), "{error}");
    }
}
