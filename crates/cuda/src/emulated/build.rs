//! Kernels as shared libraries: the shim in front, the source, a line per entry behind it, and the host's C++ compiler.

use super::{Flavour, runtime::Run};
use crate::{cache::Cache, program};
use alexnode_core::{Error, Result};
use libloading::Library;
use std::{collections::HashMap, ffi::OsString, fs, path::Path, process::Command};

const SHIM: &str = include_str!("../../../../cuda/emulator/emulator.h");
const CHECK: &str = include_str!("../../../../cuda/emulator/check.h");

/// The host's C++ compiler.
#[derive(Clone, Debug)]
pub struct Compiler {
    command: OsString,
    version: String,
}

impl Compiler {
    /// `$CXX`, else `c++`.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is none.
    pub fn find() -> Result<Self> {
        let command = std::env::var_os("CXX").filter(|c| !c.is_empty()).unwrap_or_else(|| "c++".into());
        let missing = |why: String| {
            Error::device(format!("emulated: no C++ compiler: {} {why}", command.to_string_lossy()))
                .hint("Install one (Debian: apt-get install g++), or name it in the variable CXX.")
        };
        let output = Command::new(&command).arg("--version").output().map_err(|e| missing(e.to_string()))?;
        if !output.status.success() {
            return Err(missing(format!("--version failed ({})", output.status)));
        }
        let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
        Ok(Self { command, version })
    }

    /// Its name and version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compiles `source` into a shared library at `path`.
    fn compile(&self, text: &str, options: &[String], path: &Path) -> Result<()> {
        let file = path.with_extension("cpp");
        let failed = |what: String| Error::kernel(format!("emulated: compiling a kernel failed: {what}"));
        fs::write(&file, text).map_err(|e| failed(e.to_string()))?;
        let output = Command::new(&self.command)
            .args(options)
            .args(["-shared", "-fPIC", "-o"])
            .arg(path)
            .arg(&file)
            .args(["-lm", "-lc", "-lgcc"])
            .output()
            .map_err(|e| failed(e.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let shown: Vec<&str> = errors.lines().filter(|line| line.contains("error")).take(5).collect();
        Err(failed(if shown.is_empty() { errors.into_owned() } else { shown.join("\n") }))
    }
}

/// What a flavour is compiled with.
fn options(flavour: Flavour) -> Vec<String> {
    // fmaf as an instruction, not a call: where the processor has it.
    #[cfg(target_arch = "x86_64")]
    let machine =
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") { "-march=x86-64-v3" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let machine = "";
    let common = "-std=c++20 -x c++ -g1 -gdwarf-4 -fvisibility=hidden -fno-exceptions -fno-math-errno -fstack-clash-protection -Wno-unknown-pragmas";
    let own = match flavour {
        Flavour::Fast => "-O3",
        // Instrumented, without the libraries of the sanitizers: check.h receives the calls.
        Flavour::Check => {
            "-O1 -DEMULATED_CHECK -nodefaultlibs -fsanitize=thread -fno-sanitize-recover=all \
             -fsanitize=bounds-strict,alignment,shift,integer-divide-by-zero,signed-integer-overflow"
        }
    };
    [common, machine, own].iter().flat_map(|part| part.split_whitespace()).map(str::to_owned).collect()
}

/// An entry: its code, its number of arguments and the size of the first.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The code.
    pub run: Run,
    /// Where the library lies that it belongs to.
    pub image: (usize, usize),
    /// Arguments, the parameters among them.
    pub arguments: u32,
    /// Bytes of the parameters.
    pub params_bytes: u32,
}

/// A compiled source.
pub struct Kernels {
    entries: HashMap<String, Entry>,
    // Unloaded last: the entries point into it.
    _library: Library,
}

impl Kernels {
    /// Compiles `text` (all includes in their places), unless the cache has it, and loads it.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the compiler refuses it.
    pub fn build(compiler: &Compiler, cache: &Cache, text: &str, defines: &[String], flavour: Flavour) -> Result<Self> {
        let entries = program::entries(text);
        let lines: String = entries.iter().map(|name| format!("EMULATED_ENTRY({name})\n")).collect();
        let check = if flavour == Flavour::Check { CHECK } else { "" };
        let whole = format!(
            "#line 1 \"emulator.h\"\n{SHIM}\n#line 1 \"check.h\"\n{check}\n{text}\n#line 1 \"entries\"\n{lines}"
        );
        let options = [options(flavour), defines.to_vec()].concat();
        let joined = options.join(" ");
        let path = cache.file("emulated", "so", &[&whole, &joined, &compiler.version], |path| {
            compiler.compile(&whole, &options, path)
        })?;
        let broken = |e: libloading::Error| {
            Error::kernel(format!("emulated: cannot load {}", path.display())).hint("Delete the file.").caused_by(e)
        };
        // SAFETY: the library was made from the text above; it has no initialisers.
        let library = unsafe { Library::new(&path) }.map_err(broken)?;
        // SAFETY: the shim defines it with this type.
        let image = unsafe { **library.get::<*const [usize; 2]>("emulated_image").map_err(broken)? };
        let mut found = HashMap::new();
        for name in entries {
            // SAFETY: `EMULATED_ENTRY` defines both symbols with these types.
            let (run, shape) = unsafe {
                let run = *library.get::<Run>(format!("emulated_run_{name}")).map_err(broken)?;
                let shape = *library.get::<*const [u32; 2]>(format!("emulated_shape_{name}")).map_err(broken)?;
                (run, *shape)
            };
            found.insert(
                name.to_owned(),
                Entry { run, image: (image[0], image[1]), arguments: shape[0], params_bytes: shape[1] },
            );
        }
        Ok(Self { entries: found, _library: library })
    }

    /// The entry `name`.
    pub fn entry(&self, name: &str) -> Option<Entry> {
        self.entries.get(name).copied()
    }
}
