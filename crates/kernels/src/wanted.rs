//! The kernels that networks launch.

use crate::request::{Noted, Request};
use alexnode_core::{BufferId, Engine, Error, Precision, Result, SlotId, Target, View, backend::MAX_PARAMS};
use alexnode_cuda::{
    compile::{Architecture, Job},
    program::Program,
};
use alexnode_nn::{ceilings, lower::External, network::Network, placement::Placement, plan::Op, resident::Plans};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A kernel that somebody launches.
pub struct Kernel {
    /// What is compiled.
    pub program: Program,
    /// A hash of its text and options, apart from the architecture.
    pub hash: String,
    /// The architectures that it is launched on: elsewhere others do its work.
    pub architectures: BTreeSet<Architecture>,
    /// Who launches it: "paper", "paper/2" on two devices. All means every network on every placement.
    pub users: Vec<String>,
    /// In which precisions.
    pub precisions: BTreeSet<&'static str>,
    /// Whether every check compiles it.
    pub always: bool,
}

impl Kernel {
    /// The job for one of its architectures.
    ///
    /// # Errors
    /// As [`Job::new`].
    pub fn job(&self, architecture: Architecture) -> Result<Job> {
        Job::new(&self.program, architecture)
    }
}

#[derive(Default)]
struct Use {
    architectures: BTreeSet<Architecture>,
    users: BTreeSet<usize>,
    precisions: BTreeSet<&'static str>,
    always: bool,
}

/// The kernels of every network of `request` in training and evaluation, on every placement, in every precision and for every architecture; sorted.
///
/// # Errors
/// Those of planning a network; `ERR_KERNEL` where a layer has no CUDA kernel.
pub fn kernels(request: &Request) -> Result<Vec<Kernel>> {
    let mut uses: BTreeMap<Program, Use> = BTreeMap::new();
    let mut names = Vec::new();
    for trained in &request.networks {
        let network = Network::new(trained.network.clone())?;
        for &devices in &trained.devices {
            let user = names.len();
            names.push(if devices == 1 { network.name().to_owned() } else { format!("{}/{devices}", network.name()) });
            for &compute in &request.architectures {
                for (precision, name) in precisions(compute) {
                    let target = Target { compute, precision };
                    for program in launched(&network, trained.batch, trained.momentum, devices, target)? {
                        let entry = uses.entry(program).or_default();
                        entry.architectures.insert(Architecture { compute });
                        entry.users.insert(user);
                        entry.precisions.insert(name);
                        entry.always |= trained.always;
                    }
                }
            }
        }
    }
    let mut also = |name: &str, programs: Vec<(u32, Program)>| {
        let user = names.len();
        names.push(name.to_owned());
        for (compute, program) in programs.into_iter().filter(|(compute, _)| request.architectures.contains(compute)) {
            let entry = uses.entry(program).or_default();
            entry.architectures.insert(Architecture { compute });
            entry.users.insert(user);
        }
    };
    if request.ceilings {
        also("ceilings", ceilings_of(&request.architectures));
    }
    if let Some(file) = &request.programs {
        also("tests", noted(file)?);
    }
    let kernel = |(program, found): (Program, Use)| {
        let every = found.users.len() == names.len();
        let users = found.users.iter().map(|&user| names[user].clone());
        Ok(Kernel {
            hash: Job::new(&program, Architecture { compute: 0 })?.hash().to_owned(),
            program,
            architectures: found.architectures,
            users: if every { vec!["all".into()] } else { users.collect() },
            precisions: found.precisions,
            always: found.always,
        })
    };
    uses.into_iter().map(kernel).collect()
}

/// The kernels that measure devices.
fn ceilings_of(architectures: &[u32]) -> Vec<(u32, Program)> {
    let mut programs = Vec::new();
    for &compute in architectures {
        for (precision, _) in precisions(compute) {
            for kernel in ceilings::kernels(precision) {
                // Which they are, no parameter decides.
                let params = [0u64; MAX_PARAMS / 8];
                let params = &bytemuck::cast_slice(&params)[..kernel.params_bytes];
                let stages = (kernel.stages)(params, &Target { compute, precision });
                programs.extend(stages.iter().map(|stage| (compute, Program::new(kernel, stage, params, true))));
            }
        }
    }
    programs
}

/// The programs in `file`, for their architectures.
fn noted(file: &Path) -> Result<Vec<(u32, Program)>> {
    let misread = |e: &dyn std::fmt::Display| Error::usage(format!("{} cannot be read: {e}", file.display()));
    let text = fs::read_to_string(file).map_err(|e| misread(&e))?;
    // Names live as long as this program, which is soon over.
    let name = |name: String| -> &'static str { name.leak() };
    let program = |line: &str| {
        let noted: Noted = serde_json::from_str(line).map_err(|e| misread(&e))?;
        let program = Program {
            source: name(noted.source),
            entry: name(noted.entry),
            defines: noted.defines.into_iter().map(|(macro_name, value)| (name(macro_name), value)).collect(),
            constants: None,
            params_bytes: noted.params_bytes,
            buffers: noted.buffers,
        };
        Ok((noted.compute, program))
    };
    text.lines().map(program).collect()
}

/// What devices of a compute capability can do.
fn precisions(compute: u32) -> Vec<(Precision, &'static str)> {
    let all = [(Precision::Fp32, "fp32"), (Precision::Tf32, "tf32"), (Precision::Bf16, "bf16")];
    all.into_iter().filter(|(precision, _)| *precision == Precision::Fp32 || compute >= 80).collect()
}

/// The kernels of training and evaluating `network`.
fn launched(
    network: &Network,
    batch: usize,
    momentum: f32,
    devices: usize,
    target: Target,
) -> Result<BTreeSet<Program>> {
    // A weighed loss has one kernel more than another.
    let engines = vec![Engine::Cuda(target); devices];
    let plans = Plans::build(network, Placement::new(devices)?, batch, momentum, true, &engines)?;
    let mut programs = BTreeSet::new();
    for plan in [&plans.train, &plans.eval] {
        // A memory that nobody has: launches are made with addresses, kernels are not.
        let needs = plan.needs();
        let buffer = |slot, index| BufferId { slot, index };
        let arenas: Vec<BufferId> = (0..devices).map(|slot| buffer(SlotId(slot as u8), 0)).collect();
        let external = |slot: SlotId, what: External| {
            let index = needs.iter().position(|need| (need.slot, need.what) == (slot, what));
            let index = index.expect("a plan names what it needs");
            View { buffer: buffer(slot, 1 + index as u32), offset: 0, bytes: needs[index].bytes }
        };
        for (_, launch) in plan.bind(&arenas, &external).iter().filter_map(Op::launch) {
            let stages = Program::of(launch, &target, true).map_err(|e: Error| e.context(network.name()))?;
            programs.extend(stages.into_iter().map(|(_, program)| program));
        }
    }
    Ok(programs)
}
