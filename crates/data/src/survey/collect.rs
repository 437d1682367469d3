//! From what is known of every file to the findings.

use super::{
    facts::Facts,
    place::{Place, Places, hidden_folders},
    report::{ClassCount, Findings, LeaveOut, Limits, Marked, Report, Summary},
};
use crate::{
    alike::{DisjointSets, join_equal, join_near},
    decode::Colours,
    files::Entry,
    options::Split,
    parallel::Workers,
};
use alexnode_core::{Error, Result};
use image::metadata::Orientation;
use std::{collections::BTreeMap, collections::HashSet, io, path::Path};

/// All that is known: one of each for every file.
pub struct Known<'a> {
    pub root: &'a Path,
    pub entries: &'a [Entry],
    /// `None` for a file that cannot be used; `bad` says why.
    pub facts: &'a [Option<Facts>],
    pub bad: &'a BTreeMap<u32, String>,
}

/// A path as it is reported.
pub fn text(path: &Path) -> String {
    let text = path.to_string_lossy();
    if std::path::MAIN_SEPARATOR == '/' { text.into_owned() } else { text.replace(std::path::MAIN_SEPARATOR, "/") }
}

/// # Errors
/// `ERR_DATA` where the folder can no longer be listed; `ERR_ABORTED` after a cancel.
pub fn collect(known: &Known<'_>, limits: Limits, leave_out: &[LeaveOut], workers: Workers<'_>) -> Result<Findings> {
    let unlisted = |e: io::Error| Error::data(format!("{}: cannot be listed: {e}", known.root.display())).caused_by(e);
    let places = Places::of(known.entries);
    let each: Vec<Option<Place>> = known.entries.iter().map(|entry| places.of_file(&entry.path)).collect();
    let groups = Groups::of(known, &each, workers)?;
    let mut report = singles(known, limits);
    report.classes = counts(known, &places, &each);
    report.hidden_folders = hidden_folders(known.root).map_err(unlisted)?.iter().map(|path| text(path)).collect();
    report.empty_classes = empty(known, &places.class_folders(known.root).map_err(unlisted)?);
    let named = |groups: &[Vec<u32>]| -> Vec<Vec<String>> {
        groups.iter().map(|group| group.iter().map(|&at| text(&known.entries[at as usize].path)).collect()).collect()
    };
    report.duplicates = named(&groups.same);
    report.near_duplicates = named(&groups.near);
    report.leaks = named(&groups.leaks);
    report.imbalance = imbalance(&report.classes);
    let summary = summary(known, &places, &each, &report, &groups);
    let quarantine = quarantine(known, limits, leave_out, &each, &report, &summary, &groups);
    Ok(Findings { report, summary, quarantine })
}

/// What concerns one file at a time.
fn singles(known: &Known<'_>, limits: Limits) -> Report {
    let mut report = Report { images: known.entries.len(), ..Report::default() };
    for (at, (entry, facts)) in known.entries.iter().zip(known.facts).enumerate() {
        let path = text(&entry.path);
        let Some(facts) = facts else {
            let reason = known.bad.get(&(at as u32)).cloned().unwrap_or_default();
            report.unreadable.push(Marked { path, reason });
            continue;
        };
        for (list, applies) in [
            (&mut report.wrong_extension, facts.misnamed(&entry.path)),
            (&mut report.cmyk, facts.colours == Colours::Cmyk),
            (&mut report.grey, facts.colours == Colours::Grey),
            (&mut report.exif_rotated, facts.orientation != Orientation::NoTransforms),
            (&mut report.tiny, limits.is_tiny(facts)),
            (&mut report.huge, limits.is_huge(facts)),
        ] {
            if applies {
                list.push(path.clone());
            }
        }
    }
    report
}

fn counts(known: &Known<'_>, places: &Places, each: &[Option<Place>]) -> Vec<ClassCount> {
    let mut classes: Vec<ClassCount> =
        places.classes.iter().map(|name| ClassCount { name: name.clone(), train: 0, val: 0 }).collect();
    for (place, facts) in each.iter().zip(known.facts) {
        if let (Some((class, split)), Some(_)) = (place, facts) {
            let count = &mut classes[*class as usize];
            *if *split == Split::Val { &mut count.val } else { &mut count.train } += 1;
        }
    }
    classes
}

fn empty(known: &Known<'_>, folders: &[std::path::PathBuf]) -> Vec<String> {
    let full = |folder: &Path| {
        // The entries are sorted by path, so those of a folder are together.
        let from = known.entries.partition_point(|entry| entry.path.as_ref() < folder);
        let inside = known.entries[from..].iter().zip(&known.facts[from..]);
        let mut inside = inside.take_while(|(entry, _)| entry.path.starts_with(folder));
        inside.any(|(_, facts)| facts.is_some())
    };
    folders.iter().filter(|folder| !full(folder)).map(|folder| text(folder)).collect()
}

fn imbalance(classes: &[ClassCount]) -> f64 {
    let counts = || classes.iter().map(|class| class.train).filter(|count| *count > 0);
    match (counts().min(), counts().max()) {
        (Some(least), Some(most)) => most as f64 / least as f64,
        _ => 0.0,
    }
}

/// Indices of files that belong together, each group and the groups in ascending order.
struct Groups {
    same: Vec<Vec<u32>>,
    near: Vec<Vec<u32>>,
    leaks: Vec<Vec<u32>>,
}

impl Groups {
    fn of(known: &Known<'_>, each: &[Option<Place>], workers: Workers<'_>) -> Result<Self> {
        let usable = || (0u32..).zip(known.facts).filter_map(|(at, facts)| Some((at, facts.as_ref()?)));
        let sets = || DisjointSets::new(known.entries.len());
        let join_same =
            |sets: &DisjointSets| join_equal(sets, usable().map(|(at, facts)| (facts.content, at)).collect::<Vec<_>>());
        let same = sets();
        join_same(&same);
        let same = same.groups();
        let copies: HashSet<u32> = same.iter().flat_map(|group| &group[1..]).copied().collect();
        let firsts = usable().filter(|(at, _)| !copies.contains(at));
        let prints = firsts.filter_map(|(at, facts)| Some((facts.print?, at)));
        let near = sets();
        join_near(&near, prints, workers)?;
        let near = near.groups();
        let all = sets();
        join_same(&all);
        for group in &near {
            group.windows(2).for_each(|pair| all.join(pair[0], pair[1]));
        }
        let on = |at: &u32, side: Split| each[*at as usize].is_some_and(|(_, split)| split == side);
        let mut leaks = all.groups();
        leaks.retain(|group| Split::ALL.iter().all(|side| group.iter().any(|at| on(at, *side))));
        Ok(Self { same, near, leaks })
    }
}

fn in_several_classes(group: &[u32], each: &[Option<Place>]) -> bool {
    let mut classes = group.iter().filter_map(|at| Some(each[*at as usize]?.0));
    let first = classes.next();
    classes.any(|class| Some(class) != first)
}

fn summary(known: &Known<'_>, places: &Places, each: &[Option<Place>], report: &Report, groups: &Groups) -> Summary {
    let given = places.val.is_some();
    let mut formats = BTreeMap::new();
    let mut sides: Vec<u32> = Vec::new();
    for facts in known.facts.iter().flatten() {
        *formats.entry(facts.format.name()).or_insert(0) += 1;
        sides.push(facts.short_side());
    }
    sides.sort_unstable();
    let only = |missing: fn(&ClassCount) -> bool| -> Vec<String> {
        report.classes.iter().filter(|class| given && missing(class)).map(|class| class.name.clone()).collect()
    };
    let conflicts = |groups: &[Vec<u32>]| groups.iter().filter(|group| in_several_classes(group, each)).count();
    Summary {
        given,
        bytes: known.entries.iter().map(|entry| entry.size).sum(),
        formats,
        short_sides: match sides[..] {
            [first, .., last] => Some([first, sides[sides.len() / 2], last]),
            [only] => Some([only; 3]),
            [] => None,
        },
        outside: each.iter().filter(|place| place.is_none()).count(),
        only_train: only(|class| class.train > 0 && class.val == 0),
        only_val: only(|class| class.val > 0 && class.train == 0),
        conflicts: conflicts(&groups.same),
        near_conflicts: conflicts(&groups.near),
    }
}

/// The files to leave out, each with the first reason that applies, in ascending order.
fn quarantine(
    known: &Known<'_>,
    limits: Limits,
    leave_out: &[LeaveOut],
    each: &[Option<Place>],
    report: &Report,
    summary: &Summary,
    groups: &Groups,
) -> Vec<Marked> {
    let mut out: BTreeMap<u32, String> = known.bad.clone();
    let name = |at: u32| text(&known.entries[at as usize].path);
    let mut put = |at: u32, reason: String| {
        out.entry(at).or_insert(reason);
    };
    let usable = || (0u32..).zip(known.facts).filter_map(|(at, facts)| Some((at, facts.as_ref()?)));
    for what in leave_out {
        match what {
            LeaveOut::Tiny => {
                let tiny = usable().filter(|(_, facts)| limits.is_tiny(facts));
                tiny.for_each(|(at, facts)| put(at, format!("tiny: {}x{}", facts.width, facts.height)));
            }
            LeaveOut::Huge => {
                let huge = usable().filter(|(_, facts)| limits.is_huge(facts));
                huge.for_each(|(at, facts)| put(at, format!("huge: {}x{}", facts.width, facts.height)));
            }
            LeaveOut::Duplicates | LeaveOut::NearDuplicates => {
                let (groups, like) = match what {
                    LeaveOut::Duplicates => (&groups.same, "the same as"),
                    _ => (&groups.near, "looks like"),
                };
                for group in groups {
                    let all = in_several_classes(group, each);
                    let mut kept: Vec<(Option<Split>, u32)> = Vec::new();
                    for &at in group {
                        let split = each[at as usize].map(|(_, split)| split);
                        let first = kept.iter().find(|(other, _)| *other == split).map(|(_, first)| *first);
                        match first {
                            _ if all => {
                                let other = if at == group[0] { group[1] } else { group[0] };
                                put(at, format!("{like} {}, in several classes", name(other)));
                            }
                            Some(first) => put(at, format!("{like} {}", name(first))),
                            None => kept.push((split, at)),
                        }
                    }
                }
            }
            LeaveOut::Leaks => {
                for group in &groups.leaks {
                    let on = |at: &&u32, side| each[**at as usize].is_some_and(|(_, split)| split == side);
                    let Some(val) = group.iter().find(|at| on(at, Split::Val)) else { continue };
                    let train = group.iter().filter(|at| on(at, Split::Train));
                    train.for_each(|&at| put(at, format!("also in val: {}", name(*val))));
                }
            }
            LeaveOut::UnmatchedClasses => {
                for (at, place) in (0u32..).zip(each) {
                    let Some((class, _)) = place else { continue };
                    let class = &report.classes[*class as usize].name;
                    if summary.only_train.contains(class) {
                        put(at, format!("class {class} is not in val"));
                    } else if summary.only_val.contains(class) {
                        put(at, format!("class {class} is not in train"));
                    }
                }
            }
        }
    }
    out.into_iter().map(|(at, reason)| Marked { path: name(at), reason }).collect()
}
