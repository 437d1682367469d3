//! Where compiled kernels come from: the pack beside the program, the cache on disk, a compiler.

use super::{Architecture, Compiled, Job, Nvcc, Nvrtc, Pack, Version, find, is_cubin};
use crate::{cache::Cache, program::Program};
use alexnode_core::{Error, Result};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How to get a compiler.
pub const REMEDY: &str = "Install NVRTC: `npm run nvrtc:install` in the project's folder; or `python3 -m pip install nvidia-cuda-nvrtc`; or a CUDA toolkit. \
     ALEXNODE_NVRTC names the library, or its folder, where it is not found.";

/// A compiler of kernels.
#[derive(Debug)]
pub enum Compiler {
    /// The library.
    Nvrtc(Nvrtc),
    /// The program.
    Nvcc(Nvcc),
}

impl Compiler {
    /// NVRTC, else nvcc: the first that is found and that makes code which a driver of version `driver` loads.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is none, with the remedy.
    pub fn find(driver: Option<Version>) -> Result<Self> {
        let missing = match Nvrtc::find(driver) {
            Ok(nvrtc) => return Ok(Self::Nvrtc(nvrtc)),
            Err(error) => error,
        };
        // Whoever names a library wants no other compiler.
        if find::named().is_none()
            && let Ok(nvcc) = Nvcc::find(driver)
        {
            return Ok(Self::Nvcc(nvcc));
        }
        Err(missing.hint(REMEDY))
    }

    /// Its version.
    pub fn version(&self) -> Version {
        match self {
            Self::Nvrtc(nvrtc) => nvrtc.version(),
            Self::Nvcc(nvcc) => nvcc.version(),
        }
    }

    /// "NVRTC 13.0".
    pub fn name(&self) -> String {
        let kind = match self {
            Self::Nvrtc(_) => "NVRTC",
            Self::Nvcc(_) => "nvcc",
        };
        format!("{kind} {}", self.version())
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        match self {
            Self::Nvrtc(nvrtc) => nvrtc.path(),
            Self::Nvcc(nvcc) => nvcc.path(),
        }
    }

    /// What it compiles for a device of `architecture`: that itself, or what runs there too.
    ///
    /// # Errors
    /// `ERR_DEVICE` where it knows neither.
    pub fn architecture(&self, architecture: Architecture) -> Result<Architecture> {
        let supported = match self {
            Self::Nvrtc(nvrtc) => nvrtc.supported(),
            Self::Nvcc(nvcc) => nvcc.supported(),
        };
        let unknown = || {
            let known: Vec<String> = supported.iter().map(u32::to_string).collect();
            Error::device(format!(
                "{} does not compile for {architecture}, only for sm_{}",
                self.name(),
                known.join(", ")
            ))
            .hint("Install a version of NVRTC that knows this device.")
        };
        architecture.nearest(supported).ok_or_else(unknown)
    }

    /// Compiles `job`.
    ///
    /// # Errors
    /// `ERR_KERNEL` with the compiler's own words.
    pub fn compile(&self, job: &Job) -> Result<Compiled> {
        let compiled = match self {
            Self::Nvrtc(nvrtc) => nvrtc.compile(job),
            Self::Nvcc(nvcc) => nvcc.compile(job),
        }?;
        if is_cubin(&compiled.image) { Ok(compiled) } else { Err(job.refused(&self.name(), "it made no machine code")) }
    }
}

/// How far a compilation is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Kernels compiled.
    pub done: usize,
    /// Kernels to compile: those that were found elsewhere are not among them.
    pub total: usize,
    /// What compiles: "NVRTC 13.0".
    pub compiler: &'a str,
}

/// Compiled kernels, wherever they come from. May be used by several threads at a time.
#[derive(Debug)]
pub struct Images {
    packs: Vec<Pack>,
    cache: Cache,
    driver: Option<Version>,
    compiler: OnceLock<std::result::Result<Compiler, (String, Option<String>)>>,
}

impl Images {
    /// The pack beside this program, the user's cache, and the compiler that is found when one is needed. `driver`: the version of CUDA that
    /// the driver supports, where it is known: it loads no code of later compilers.
    pub fn new(driver: Option<Version>) -> Self {
        let pack = find::beside().and_then(|folder| Pack::open(&folder.join("kernels")));
        Self::with(pack.into_iter().collect(), Cache::of_user(), driver)
    }

    /// The same from other places.
    pub fn with(packs: Vec<Pack>, cache: Cache, driver: Option<Version>) -> Self {
        let packs = packs.into_iter().filter(|pack| pack.version().loads(driver)).collect();
        Self { packs, cache, driver, compiler: OnceLock::new() }
    }

    /// The compiler, looked for at the first call.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is none, with the remedy.
    pub fn compiler(&self) -> Result<&Compiler> {
        let found = self.compiler.get_or_init(|| {
            Compiler::find(self.driver).map_err(|e| (e.message().to_owned(), e.remedy().map(str::to_owned)))
        });
        found.as_ref().map_err(|(message, remedy)| {
            let error = Error::device(message.as_str());
            remedy.iter().fold(error, |error, remedy| error.hint(remedy.as_str()))
        })
    }

    /// `program` as machine code for a device of compute capability `compute` (times ten).
    ///
    /// # Errors
    /// As [`images`](Self::images).
    pub fn image(&self, program: &Program, compute: u32) -> Result<Vec<u8>> {
        let mut images = self.images(std::slice::from_ref(program), compute, &|_| {})?;
        images.pop().ok_or_else(|| Error::kernel(format!("{}: no image", program.entry)))
    }

    /// All of `programs`, in their order. Those that have to be compiled are compiled at the same time, as many as the process may use
    /// processors; `progress` is told before the first, and after each.
    ///
    /// # Errors
    /// `ERR_DEVICE` where a compiler is needed and there is none, or it does not know the device; `ERR_KERNEL` where it refuses a program.
    pub fn images(
        &self,
        programs: &[Program],
        compute: u32,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Vec<Vec<u8>>> {
        let architecture = Architecture { compute };
        let jobs = programs.iter().map(|program| Job::new(program, architecture)).collect::<Result<Vec<_>>>()?;
        let mut images: HashMap<&str, Vec<u8>> = HashMap::new();
        let mut missing = Vec::new();
        for (job, program) in jobs.iter().zip(programs) {
            if images.contains_key(job.key()) || missing.iter().any(|(other, _): &(&Job, _)| other.key() == job.key()) {
                continue;
            }
            match self.packs.iter().find_map(|pack| pack.get(job.key())) {
                Some(image) => drop(images.insert(job.key(), image)),
                None => missing.push((job, program)),
            }
        }
        if !missing.is_empty() {
            for (key, image) in self.made(&missing, architecture, progress)? {
                images.insert(key, image);
            }
        }
        Ok(jobs.iter().map(|job| images[job.key()].clone()).collect())
    }

    /// From the cache, or compiled.
    fn made<'j>(
        &self,
        missing: &[(&'j Job, &Program)],
        architecture: Architecture,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Vec<(&'j str, Vec<u8>)>> {
        let compiler = self.compiler()?;
        let name = compiler.name();
        let nearest = compiler.architecture(architecture)?;
        let (mut made, mut left) = (Vec::new(), Vec::new());
        for &(job, program) in missing {
            let own = Job::new(program, nearest)?;
            match self.cache.read("kernel", "cubin", &[own.key(), &name]).filter(|image| is_cubin(image)) {
                Some(image) => made.push((job.key(), image)),
                None => left.push((job.key(), own)),
            }
        }
        if left.is_empty() {
            return Ok(made);
        }
        let (total, done) = (left.len(), AtomicUsize::new(0));
        let tell = |done: usize| progress(Progress { done, total, compiler: &name });
        tell(0);
        let compile = |(key, job): (&'j str, Job)| {
            let image = compiler.compile(&job)?.image;
            // A cache that cannot be written only costs the time of the next start.
            let _ = self.cache.write("kernel", "cubin", &[job.key(), &name], &image);
            tell(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok((key, image))
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(total);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::device(format!("cannot start {threads} threads")).caused_by(e))?;
        let compiled: Result<Vec<_>> = pool.install(|| left.into_par_iter().map(compile).collect());
        made.extend(compiled?);
        Ok(made)
    }
}
