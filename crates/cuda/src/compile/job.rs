//! A kernel to be compiled for one architecture.

use super::Architecture;
use crate::program::{self, Program};
use alexnode_core::{Error, Result};
use sha2::{Digest, Sha256};

/// A kernel with everything that its machine code depends on, but the compiler.
#[derive(Clone, Debug)]
pub struct Job {
    entry: &'static str,
    source: &'static str,
    architecture: Architecture,
    text: String,
    hash: String,
    key: String,
}

impl Job {
    /// What all are compiled with; both compilers understand it. Warning 177: a function that is not used, as every source has some.
    pub const OPTIONS: [&str; 3] = ["--std=c++17", "--diag-suppress=177", "--ptxas-options=-v"];

    /// `program` for `architecture`.
    ///
    /// # Errors
    /// `ERR_KERNEL` where there is no such source, or no such entry in it.
    pub fn new(program: &Program, architecture: Architecture) -> Result<Self> {
        let Program { source, entry, params_bytes, buffers, .. } = program;
        let text = program::only(&program::text(source)?, entry);
        if program::entries(&text) != [*entry] {
            return Err(Error::kernel(format!("{source}: no entry {entry}")));
        }
        // Macros as lines of the text: nvcc would take an option apart at its commas.
        let macros: String = program.macros().iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
        // A launch hands over addresses as numbers: nobody else would see that there are too few of them.
        let text = format!(
            "{macros}{text}#line 1 \"launch of {entry}\"
template <class Entry> struct Launch;
template <class Params, class... Buffers> struct Launch<void(Params, Buffers...)> {{
    static constexpr bool fits = sizeof(Params) == {params_bytes} && sizeof...(Buffers) == {buffers};
}};
static_assert(Launch<decltype({entry})>::fits, \"the launch passes parameters of {params_bytes} bytes and {buffers} buffers\");
"
        );
        let hash = digest(&[&Self::OPTIONS.join(" "), &program::essence(&text)]);
        let key = digest(&[&hash, &architecture.to_string()]);
        Ok(Self { entry, source, architecture, text, hash, key })
    }

    /// The kernel's name.
    pub fn entry(&self) -> &'static str {
        self.entry
    }

    /// The file in `cuda/` that it comes from.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// What it is compiled for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// What is compiled.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How.
    pub fn options(&self) -> impl Iterator<Item = String> {
        let architecture = format!("--gpu-architecture={}", self.architecture);
        [architecture].into_iter().chain(Self::OPTIONS.map(str::to_owned))
    }

    /// A hash of text and options: all but the architecture.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// A hash of text, options and architecture: equal keys, equal code, as far as it is the same compiler's. Comments do not count.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The error where the compiler says no.
    pub(super) fn refused(&self, compiler: &str, log: &str) -> Error {
        let lines: Vec<&str> =
            log.lines().filter(|line| !line.starts_with("ptxas info") && !line.trim().is_empty()).take(40).collect();
        let log = if lines.is_empty() { "it does not say why".to_owned() } else { lines.join("\n") };
        Error::kernel(format!("{} ({}): {compiler} cannot compile it:\n{log}", self.entry, self.architecture))
    }
}

/// The first half of a SHA-256, as text.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
