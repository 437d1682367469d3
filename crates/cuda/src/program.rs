//! A kernel before it is compiled: one entry of one source with its macros, and, on a real device, its parameters.

use alexnode_core::{Error, KernelDef, Launch, Result, Stage, Target};
use std::fmt::Write;

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        /// The files of `cuda/`, as part of this program.
        const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../cuda/", $name)))),*];
    };
}
sources![
    "async.cuh",
    "common.cuh",
    "convolution.cuh",
    "dropout.cuh",
    "gemm.cuh",
    "local_response_norm.cuh",
    "max_pool2d.cuh",
    "gemm_bf16.cuh",
    "gemm_fp32.cuh",
    "gemm_tensor.cuh",
    "gemm_tf32.cuh",
    "mma.cuh",
    "pointwise.cuh",
    "pool.cuh",
    "response_norm.cuh",
    "space_to_depth.cuh",
    "add.cu",
    "augment.cu",
    "avg_pool2d.cu",
    "ceilings.cu",
    "class_weights.cu",
    "conv2d.cu",
    "dropout.cu",
    "instructions.cu",
    "linear.cu",
    "local2d.cu",
    "local_response_norm.cu",
    "map_response_norm.cu",
    "max_pool2d.cu",
    "norm_pool.cu",
    "product.cu",
    "relu.cu",
    "sgd.cu",
    "softmax_cross_entropy.cu",
    "tanh.cu",
    "tensor_ceilings.cu",
];

/// A kernel to be compiled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program {
    /// The file in `cuda/`.
    pub source: &'static str,
    /// Its entry.
    pub entry: &'static str,
    /// Macros.
    pub defines: Vec<(&'static str, i32)>,
    /// The 32-bit words of the parameters, where they become constants.
    pub constants: Option<Vec<u32>>,
    /// Size of the struct of parameters.
    pub params_bytes: usize,
    /// Number of buffers.
    pub buffers: usize,
}

impl Program {
    /// What a device of `target` runs for `launch`, one after the other, and what has to be compiled for it; see [`new`](Self::new).
    ///
    /// # Errors
    /// `ERR_KERNEL` where the operation has no CUDA kernel.
    pub fn of(launch: &Launch, target: &Target, specialise: bool) -> Result<Vec<(Stage, Self)>> {
        let stages = (launch.kernel.stages)(launch.params(), target);
        if stages.is_empty() {
            return Err(Error::kernel(format!("{}: there is no CUDA kernel for it", launch.kernel.name)));
        }
        let program = |stage: Stage| {
            let program = Self::new(launch.kernel, &stage, launch.params(), specialise);
            (stage, program)
        };
        Ok(stages.into_iter().map(program).collect())
    }

    /// What `stage` of `kernel` needs to be compiled. `params` become constants where the stage asks for it and `specialise` allows it.
    pub fn new(kernel: &KernelDef, stage: &Stage, params: &[u8], specialise: bool) -> Self {
        let words = || params.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
        Self {
            source: kernel.source,
            entry: stage.entry,
            defines: stage.defines.clone(),
            constants: (stage.constant && specialise).then(words),
            params_bytes: kernel.params_bytes,
            buffers: kernel.access.len(),
        }
    }

    /// The macros, with their values.
    pub fn macros(&self) -> Vec<(&'static str, String)> {
        let mut macros: Vec<_> = self.defines.iter().map(|(name, value)| (*name, value.to_string())).collect();
        if let Some(words) = &self.constants {
            let words: Vec<String> = words.iter().map(|word| format!("{word:#x}u")).collect();
            macros.push(("PARAMS_WORDS", words.join(",")));
        }
        macros
    }

    /// The options that make the macros.
    pub fn options(&self) -> Vec<String> {
        self.macros().iter().map(|(name, value)| format!("-D{name}={value}")).collect()
    }
}

/// The whole text of `source`: its includes in their places, once each, so that a compiler needs no search path. Lines keep their numbers.
///
/// # Errors
/// `ERR_KERNEL` where there is no such file.
pub fn text(source: &str) -> Result<String> {
    text_among(&[], source)
}

/// As [`text`], where `sources` hold further files by their names.
///
/// # Errors
/// As [`text`].
pub fn text_among(sources: &[(&str, &str)], source: &str) -> Result<String> {
    let mut out = String::new();
    expand(sources, source, &mut Vec::new(), &mut out)?;
    Ok(out)
}

fn expand(sources: &[(&str, &str)], name: &str, seen: &mut Vec<String>, out: &mut String) -> Result<()> {
    let (_, body) = sources
        .iter()
        .chain(SOURCES)
        .find(|(file, _)| *file == name)
        .ok_or_else(|| Error::kernel(format!("cuda/{name}: no such kernel source is part of this program")))?;
    let _ = writeln!(out, "#line 1 \"{name}\"");
    for (number, line) in body.lines().enumerate() {
        let included = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        match included {
            Some(file) if !seen.iter().any(|s| s == file) => {
                seen.push(file.to_owned());
                expand(sources, file, seen, out)?;
                let _ = writeln!(out, "#line {} \"{name}\"", number + 2);
            }
            Some(_) => out.push('\n'),
            // Every file stands here once: the compiler would only warn of it.
            None if line == "#pragma once" => out.push('\n'),
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Ok(())
}

/// `text` without its other entries than `entry`: a compiler takes time for each. Lines keep their numbers.
pub fn only(text: &str, entry: &str) -> String {
    let (mut out, mut skipping) = (String::with_capacity(text.len()), false);
    for line in text.lines() {
        skipping |= name(line).is_some_and(|name| name != entry);
        if !skipping {
            out.push_str(line);
        }
        out.push('\n');
        // The brace that closes a function stands alone at the beginning of a line.
        skipping &= line != "}";
    }
    out
}

/// `text` without what no compiler minds: comments, empty lines, indentation, the numbers of lines.
pub fn essence(text: &str) -> String {
    let code = text.lines().map(|line| match line.find("//") {
        // Not in the middle of a string.
        Some(comment) if !line[..comment].contains('"') => line[..comment].trim(),
        _ => line.trim(),
    });
    let code = code.filter(|line| !line.is_empty() && !line.starts_with("#line "));
    code.flat_map(|line| [line, "\n"]).collect()
}

/// The name of the entry that begins in `line`: what follows `KERNEL(threads)`.
fn name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("KERNEL(")?;
    Some(rest.split_once(") ")?.1.split_once('(')?.0)
}

/// The entries of `text`, in their order.
pub fn entries(text: &str) -> Vec<&str> {
    text.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_stand_in_their_places_once() {
        let text = text("relu.cu").unwrap();
        assert_eq!(text.matches("struct StepState {").count(), 1);
        assert!(!text.contains("#include") && !text.contains("#pragma once"));
        assert_eq!(entries(&text), ["relu_forward", "relu_backward"]);
        assert!(super::text("nothing.cu").is_err());
    }

    #[test]
    fn other_entries_are_cut_out_and_comments_do_not_count() {
        let whole = text("relu.cu").unwrap();
        let one = only(&whole, "relu_backward");
        assert_eq!((entries(&one), one.lines().count()), (vec!["relu_backward"], whole.lines().count()));
        assert!(one.contains("struct StepState {") && one.contains("dy[place"));
        let code = essence("#line 3 \"x.cu\"\n// What it is.\n\n    int x; // why\n    f(\"a // b\");\n");
        assert_eq!(code, "int x;\nf(\"a // b\");\n");
    }

    #[test]
    fn every_source_that_a_file_includes_is_part_of_the_program() {
        for (name, _) in SOURCES.iter().filter(|(name, _)| name.ends_with(".cu")) {
            assert!(!entries(&text(name).unwrap()).is_empty(), "{name} has no entry");
        }
    }
}
