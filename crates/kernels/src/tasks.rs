//! Writing the table, checking it, making a pack.

use crate::{
    request::CHECKED,
    table::Table,
    wanted::Kernel,
    work::{self, Pair},
};
use alexnode_core::{Error, Result};
use alexnode_cuda::{
    cache::Cache,
    compile::{Architecture, Compiler, Images, Pack},
    program::Program,
};
use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
    time::{Duration, Instant},
};

/// How often the table is written while kernels are compiled: an interrupted run goes on where it stopped.
const SAVED: Duration = Duration::from_secs(60);
/// How many of the rows that changed a check compiles, apart from those that it always does: minutes, not the better part of an hour.
const SAMPLE: usize = 240;
/// How many problems are listed.
const SHOWN: usize = 20;

/// Compiles what `path` does not know, or everything, and writes it.
///
/// # Errors
/// `ERR_DEVICE` without a compiler, `ERR_KERNEL` where kernels cannot be compiled, or take more than a device has.
pub fn write(kernels: &[Kernel], path: &Path, all: bool) -> Result<()> {
    let compiler = Compiler::find(None)?;
    let mut table = Table::open(path)?;
    // Figures of another version say nothing about this one.
    if all || table.compiler != compiler.name() {
        table = Table { compiler: compiler.name(), ..Table::default() };
    }
    let missing = table.missing(kernels);
    let (mut problems, mut saved) = (Vec::new(), Instant::now());
    work::compile(&compiler, &missing, |(kernel, architecture), outcome| {
        match outcome.map(|figures| (figures, figures.problem())) {
            Ok((figures, None)) => drop(table.figures.insert((kernel.hash.clone(), architecture), figures)),
            Ok((_, Some(problem))) => problems.push(describe(kernel, architecture, &problem)),
            Err(error) => problems.push(describe(kernel, architecture, error.message())),
        }
        if saved.elapsed() > SAVED {
            table.write(kernels, path)?;
            saved = Instant::now();
        }
        Ok(())
    })?;
    table.write(kernels, path)?;
    println!("{}; {} of them now", Table::summary(kernels), missing.len());
    report(problems)
}

/// Compares the table in `path` with the kernels: every row must be there and nothing else; a part of them is compiled again. `previous`: the
/// table before its last change.
///
/// # Errors
/// `ERR_KERNEL` where something differs, or a kernel cannot be compiled; `ERR_DEVICE` without a compiler.
pub fn check(kernels: &[Kernel], path: &Path, previous: Option<&str>) -> Result<()> {
    let compiler = Compiler::find(None)?;
    let table = Table::open(path)?;
    let mut problems = differences(kernels, &table, &compiler.name());
    // One of another form than today's says nothing: then every row has changed.
    let previous = previous.and_then(|text| Table::parse(text).ok()).unwrap_or_default();
    let chosen = chosen(kernels, &table, &previous);
    work::compile(&compiler, &chosen, |(kernel, architecture), outcome| {
        let known = table.figures.get(&(kernel.hash.clone(), architecture));
        let problem = match outcome {
            Err(error) => Some(error.message().to_owned()),
            Ok(figures) => figures.problem().or_else(|| match known {
                Some(known) if *known != figures => Some(format!("the table says {known}, it is {figures}")),
                _ => None,
            }),
        };
        problems.extend(problem.map(|problem| describe(kernel, architecture, &problem)));
        Ok(())
    })?;
    println!("{}; {} of them checked", Table::summary(kernels), chosen.len());
    report(problems).map_err(|e| e.hint("`npm run kernels` writes the table anew; commit it with the kernels."))
}

/// How `table` differs from that of `kernels`, as far as it shows without compiling them by `compiler`.
fn differences(kernels: &[Kernel], table: &Table, compiler: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if table.compiler != compiler {
        problems.push(format!(
            "the table was made by {}, this is {}: `npm run nvrtc:install` gets the right one",
            table.compiler, compiler
        ));
    }
    let now: BTreeSet<String> =
        table.text(kernels).lines().skip_while(|line| line.starts_with('#')).skip(1).map(str::to_owned).collect();
    for (kernel, architecture) in table.missing(kernels).into_iter().take(SHOWN / 2) {
        problems.push(describe(kernel, architecture, "the table does not say what it takes"));
    }
    let sides =
        [("not in the table", now.difference(&table.lines)), ("in the table only", table.lines.difference(&now))];
    for (what, lines) in sides {
        let lines: Vec<&String> = lines.collect();
        problems.extend(lines.iter().take(SHOWN / 2).map(|line| format!("{what}: {}", line.replace('\t', "  "))));
        if lines.len() > SHOWN / 2 {
            problems.push(format!("{what}: {} more", lines.len() - SHOWN / 2));
        }
    }
    problems
}

/// What a check compiles: the kernels that it always does; of the rows that changed since `previous` a sample that depends on nothing else.
fn chosen<'k>(kernels: &'k [Kernel], table: &Table, previous: &Table) -> Vec<Pair<'k>> {
    let pairs = kernels.iter().flat_map(|kernel| kernel.architectures.iter().map(move |a| (kernel, *a)));
    let (mut chosen, others): (Vec<Pair<'k>>, Vec<Pair<'k>>) =
        pairs.partition(|(kernel, a)| kernel.always && CHECKED.contains(&a.compute));
    let changed = |(kernel, a): &Pair<'k>| {
        let key = (kernel.hash.clone(), *a);
        table.figures.get(&key) != previous.figures.get(&key)
    };
    let mut changed: Vec<(String, Pair<'k>)> = others
        .into_iter()
        .filter(changed)
        .filter_map(|(kernel, a)| Some((kernel.job(a).ok()?.key().to_owned(), (kernel, a))))
        .collect();
    changed.sort_by(|(a, _), (b, _)| a.cmp(b));
    if changed.len() > SAMPLE {
        println!("{} rows have changed: {SAMPLE} of them are compiled again", changed.len());
    }
    chosen.extend(changed.into_iter().take(SAMPLE).map(|(_, pair)| pair));
    chosen
}

/// Writes a pack of `kernels`, for their architectures, into `folder`.
///
/// # Errors
/// As [`Images::images`]; `ERR_DEVICE` where the folder cannot be written.
pub fn pack(kernels: &[Kernel], folder: &Path) -> Result<()> {
    let images = Images::with(Vec::new(), Cache::of_user(), None);
    let pack = Pack::create(folder, images.compiler()?.version())?;
    let architectures: BTreeSet<Architecture> = kernels.iter().flat_map(|k| k.architectures.iter().copied()).collect();
    let (mut files, mut bytes) = (HashSet::new(), 0);
    for architecture in architectures {
        let wanted: Vec<&Kernel> = kernels.iter().filter(|k| k.architectures.contains(&architecture)).collect();
        let programs: Vec<Program> = wanted.iter().map(|kernel| kernel.program.clone()).collect();
        let progress = |p: alexnode_cuda::compile::Progress<'_>| {
            if p.done == 0 {
                eprintln!("{}: compiling {} kernels for {architecture}", p.compiler, p.total);
            }
        };
        for (kernel, image) in wanted.iter().zip(images.images(&programs, architecture.compute, &progress)?) {
            let key = kernel.job(architecture)?.key().to_owned();
            pack.add(&key, &image)?;
            if files.insert(key) {
                bytes += image.len();
            }
        }
    }
    println!("{}: {} kernels, {:.1} MB", folder.display(), files.len(), bytes as f64 / 1e6);
    Ok(())
}

fn describe(kernel: &Kernel, architecture: Architecture, problem: &str) -> String {
    let Program { source, entry, .. } = kernel.program;
    let options = kernel.program.options().join(" ");
    format!("{source}: {entry} ({architecture}, {}, {options}): {problem}", kernel.users.join(" "))
}

fn report(problems: Vec<String>) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    for problem in problems.iter().take(SHOWN) {
        eprintln!("{problem}");
    }
    let count = problems.len();
    Err(Error::kernel(if count == 1 {
        "one problem".into()
    } else {
        format!("{count} problems, the first ones above")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{figures::Figures, table::tests::kernels};

    #[test]
    fn a_table_that_is_not_that_of_the_kernels_is_a_problem() {
        let kernels = kernels();
        let mut table = Table { compiler: "NVRTC 13.0".into(), ..Table::default() };
        for (kernel, architecture) in table.missing(&kernels) {
            let figures = Figures { registers: 32, shared: 0, stack: 0, spilled: 0 };
            table.figures.insert((kernel.hash.clone(), architecture), figures);
        }
        let differences = |text: &str| differences(&kernels, &Table::parse(text).unwrap(), "NVRTC 13.0");
        let text = table.text(&kernels);
        assert_eq!(differences(&text), [""; 0]);

        let unknown = differences(&text.replacen("\t32/0", "\t?", 1));
        assert!(unknown.len() == 1 && unknown[0].contains("does not say what it takes"), "{unknown:?}");
        let (hash, edited) = (&kernels[0].hash, "0".repeat(32));
        let edited = differences(&text.replace(hash, &edited)).join("\n");
        assert!(edited.contains("not in the table: ") && edited.contains("in the table only: "), "{edited}");
        let other = differences(&text.replace("NVRTC 13.0", "NVRTC 12.8"));
        assert!(other.len() == 1 && other[0].contains("made by NVRTC 12.8, this is NVRTC 13.0"), "{other:?}");
        let one_less: String = text.lines().filter(|line| !line.contains(hash)).flat_map(|line| [line, "\n"]).collect();
        assert!(differences(&one_less).iter().any(|problem| problem.contains("not in the table: ")));
    }
}
