//! What is asked for.

use alexnode_nn::network::NetworkSpec;
use serde::Deserialize;
use std::path::PathBuf;

/// All of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The networks.
    pub networks: Vec<Trained>,
    /// Compute capabilities, times ten.
    pub architectures: Vec<u32>,
    /// Whether the kernels that measure a device are wanted, too.
    #[serde(default)]
    pub ceilings: bool,
    /// A file with more programs, a line of JSON for each: those of the tests (`crates/nn/tests/kernels/programs.rs`).
    #[serde(default)]
    pub programs: Option<PathBuf>,
    /// What to do.
    pub task: Task,
}

/// A line of [`Request::programs`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Noted {
    /// Compute capability, times ten.
    pub compute: u32,
    /// The file in `cuda/`.
    pub source: String,
    /// Its entry.
    pub entry: String,
    /// Macros.
    pub defines: Vec<(String, i32)>,
    /// Size of the struct of parameters.
    pub params_bytes: usize,
    /// Number of buffers.
    pub buffers: usize,
}

/// A network as it is trained.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trained {
    /// The network.
    pub network: NetworkSpec,
    /// Images of a step.
    pub batch: usize,
    /// The optimiser's momentum.
    pub momentum: f32,
    /// On how many devices: one entry for each placement.
    pub devices: Vec<usize>,
    /// Whether a check compiles its kernels for [`CHECKED`], whatever the table says.
    #[serde(default)]
    pub always: bool,
}

/// The architectures that every check compiles for: the first with tensor cores as the kernels use them, and the one that has instructions of its own.
pub const CHECKED: [u32; 2] = [80, 90];

/// What to do.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, tag = "type")]
pub enum Task {
    /// Compile what has changed since the table was written, and write it.
    Write {
        /// The file.
        table: PathBuf,
        /// Compile everything.
        all: bool,
    },
    /// Compare the table with the kernels.
    Check {
        /// The file.
        table: PathBuf,
        /// Its text before the last change, where it is known.
        previous: Option<String>,
    },
    /// Make a folder of compiled kernels.
    Pack {
        /// The folder.
        folder: PathBuf,
    },
}
