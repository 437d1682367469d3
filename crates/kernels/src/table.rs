//! The table of kernels: a text file with a line per kernel, tabs between its fields, and what the kernel takes on each architecture in the last ones.

use crate::{figures::Figures, wanted::Kernel};
use alexnode_core::{Error, Result};
use alexnode_cuda::compile::{Architecture, Job};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    fs, io,
    path::Path,
};

/// What the first field of the line with the names of the fields says.
const FIRST: &str = "source";
/// How the line begins that names the compiler.
const COMPILER: &str = "# Compiled by ";

/// What is known of compiled kernels.
#[derive(Default)]
pub struct Table {
    /// "NVRTC 13.0".
    pub compiler: String,
    /// By kernel and architecture.
    pub figures: HashMap<(String, Architecture), Figures>,
    /// The lines of the kernels, as they stand in the file.
    pub lines: BTreeSet<String>,
}

impl Table {
    /// The table in the file; an empty one where there is none.
    ///
    /// # Errors
    /// `ERR_USAGE` where it cannot be read or understood.
    pub fn open(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|e| e.context(path.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Error::usage(format!("cannot read {}", path.display())).caused_by(e)),
        }
    }

    /// From the text of the file.
    ///
    /// # Errors
    /// `ERR_USAGE` where it is not understood.
    pub fn parse(text: &str) -> Result<Self> {
        let mut table = Self::default();
        // The architectures of the last fields.
        let mut columns: Vec<(usize, Architecture)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let wrong = || {
                Error::usage(format!("line {}: not understood", number + 1))
                    .hint("Delete the file, and run `npm run kernels`.")
            };
            if let Some(rest) = line.strip_prefix(COMPILER) {
                rest.split_once(':').ok_or_else(wrong)?.0.clone_into(&mut table.compiler);
            }
            if line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split('\t').collect();
            if fields[0] == FIRST {
                for (i, field) in fields.iter().enumerate() {
                    if let Some(compute) = field.strip_prefix("sm_") {
                        let compute = compute.trim_end_matches('a').parse().map_err(|_| wrong())?;
                        columns.push((i, Architecture { compute }));
                    }
                }
                continue;
            }
            let hash = *fields.get(2).ok_or_else(wrong)?;
            for (i, architecture) in &columns {
                let field = *fields.get(*i).ok_or_else(wrong)?;
                if field != "-" && field != "?" {
                    let figures = field.parse().map_err(|()| wrong())?;
                    table.figures.insert((hash.to_owned(), *architecture), figures);
                }
            }
            table.lines.insert(line.to_owned());
        }
        Ok(table)
    }

    /// The text of the file for `kernels`.
    pub fn text(&self, kernels: &[Kernel]) -> String {
        let architectures: BTreeSet<Architecture> =
            kernels.iter().flat_map(|k| k.architectures.iter().copied()).collect();
        let mut out = String::from(
            "# Every kernel that the presets launch in training and evaluation, in each precision, on one device and where they have two towers on two.
# Under each architecture: registers of a thread / bytes of static shared memory of a block (/ bytes of a thread's stack, where there are any).
# None spills. A dash: not launched there. Written by `npm run kernels`, which compiles what has changed; `npm run kernels -- --check` compares.
",
        );
        let _ = writeln!(out, "{COMPILER}{}: {}", self.compiler, Job::OPTIONS.join(" "));
        let names: Vec<String> = architectures.iter().map(Architecture::to_string).collect();
        let _ = writeln!(out, "{FIRST}\tentry\thash\tdefines\tparameters\tpresets\tprecisions\t{}", names.join("\t"));
        for kernel in kernels {
            out.push_str(&self.line(kernel, &architectures));
            out.push('\n');
        }
        out
    }

    fn line(&self, kernel: &Kernel, architectures: &BTreeSet<Architecture>) -> String {
        let program = &kernel.program;
        let defines: Vec<String> = program.defines.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let words = program.constants.iter().flatten().map(|&word| match word as i32 {
            count @ -0xf_ffff..=0xf_ffff => count.to_string(),
            // A float, most likely.
            _ => format!("{word:#x}"),
        });
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let mut fields = vec![
            program.source.to_owned(),
            program.entry.to_owned(),
            kernel.hash.clone(),
            dash(defines.join(" ")),
            dash(words.collect::<Vec<_>>().join(" ")),
            kernel.users.join(" "),
            kernel.precisions.iter().copied().collect::<Vec<_>>().join(" "),
        ];
        for architecture in architectures {
            fields.push(match self.figures.get(&(kernel.hash.clone(), *architecture)) {
                _ if !kernel.architectures.contains(architecture) => "-".to_owned(),
                Some(figures) => figures.to_string(),
                None => "?".to_owned(),
            });
        }
        fields.join("\t")
    }

    /// Writes the table of `kernels`, whole or not at all.
    ///
    /// # Errors
    /// `ERR_USAGE` where the file cannot be written.
    pub fn write(&self, kernels: &[Kernel], path: &Path) -> Result<()> {
        let temporary = path.with_extension("new");
        let done = fs::write(&temporary, self.text(kernels)).and_then(|()| fs::rename(&temporary, path));
        done.map_err(|e| Error::usage(format!("cannot write {}", path.display())).caused_by(e))
    }

    /// Kernels and architectures of which nothing is known.
    pub fn missing<'k>(&self, kernels: &'k [Kernel]) -> Vec<(&'k Kernel, Architecture)> {
        let pairs = kernels.iter().flat_map(|kernel| kernel.architectures.iter().map(move |a| (kernel, *a)));
        pairs.filter(|(kernel, a)| !self.figures.contains_key(&(kernel.hash.clone(), *a))).collect()
    }

    /// How many kernels each source has, for a last line.
    pub fn summary(kernels: &[Kernel]) -> String {
        let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
        for kernel in kernels {
            *sources.entry(kernel.program.source).or_default() += 1;
        }
        let compiled: usize = kernels.iter().map(|kernel| kernel.architectures.len()).sum();
        format!("{} kernels of {} sources, compiled {compiled} times", kernels.len(), sources.len())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{request::Request, wanted};

    /// Those of a small network.
    pub(crate) fn kernels() -> Vec<Kernel> {
        let network = serde_json::json!({
            "name": "mini", "classes": 10,
            "input": { "imageSize": 12, "cropSize": 8, "flip": true },
            "layers": [
                { "type": "conv2d", "name": "conv1", "outChannels": 8, "kernelSize": 3, "weightInit": { "type": "he" } },
                { "type": "localResponseNorm", "name": "lrn1", "size": 5, "k": 2.0, "alpha": 0.01, "beta": 0.75, "groups": 2 },
                { "type": "linear", "name": "fc2", "outFeatures": 10, "weightInit": { "type": "he" } },
            ],
        });
        let request: Request = serde_json::from_value(serde_json::json!({
            "networks": [{ "network": network, "batch": 4, "momentum": 0.9, "devices": [1, 2] }],
            "architectures": [75, 90],
            "task": { "type": "check", "table": "" },
        }))
        .unwrap();
        wanted::kernels(&request).unwrap()
    }

    #[test]
    fn a_network_is_told_by_its_kernels() {
        let kernels = kernels();
        let forward: Vec<&Kernel> = kernels.iter().filter(|k| k.program.entry == "conv2d_forward").collect();
        // On one device and on two, in three precisions, of which sm_75 has one.
        let on = |compute| forward.iter().filter(|k| k.architectures.contains(&Architecture { compute })).count();
        assert_eq!((on(75), on(90)), (2, 6));
        assert!(forward.iter().any(|k| k.users == ["mini"]) && forward.iter().any(|k| k.users == ["mini/2"]));
        let sgd: Vec<&Kernel> = kernels.iter().filter(|k| k.program.source == "sgd.cu").collect();
        assert_eq!((sgd.len(), &sgd[0].users, sgd[0].precisions.len()), (1, &vec!["all".to_owned()], 3));
        let hashes: BTreeSet<&str> = kernels.iter().map(|k| k.hash.as_str()).collect();
        assert_eq!(hashes.len(), kernels.len());
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let kernels = kernels();
        let mut table = Table { compiler: "NVRTC 13.0".into(), ..Table::default() };
        assert_eq!(table.missing(&kernels).len(), kernels.iter().map(|k| k.architectures.len()).sum::<usize>());
        for (i, (kernel, architecture)) in table.missing(&kernels).into_iter().enumerate().skip(1) {
            let figures = Figures { registers: i, shared: 2 * i, stack: i % 2, spilled: 0 };
            table.figures.insert((kernel.hash.clone(), architecture), figures);
        }
        let folder = std::env::temp_dir().join(format!("alexnode-table-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("kernels.tsv");
        assert!(Table::open(&path).unwrap().lines.is_empty());
        table.write(&kernels, &path).unwrap();
        let read = Table::open(&path).unwrap();
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(
            (&read.compiler, read.missing(&kernels).len(), read.lines.len()),
            (&table.compiler, 1, kernels.len())
        );
        assert!(read.figures == table.figures);
        assert_eq!(read.text(&kernels), table.text(&kernels));
        assert!(Table::parse("source\tentry\thash\tsm_80\nx\ty\tz\tmany").is_err());
    }
}
