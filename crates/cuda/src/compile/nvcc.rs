//! nvcc, the compiler of the CUDA toolkit: serves where there is a toolkit without NVRTC.

use super::{Compiled, Job, Version};
use alexnode_core::{Error, Result};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// nvcc, found.
#[derive(Clone, Debug)]
pub struct Nvcc {
    path: PathBuf,
    version: Version,
    supported: Vec<u32>,
}

impl Nvcc {
    /// The one on the path, or of `$CUDA_HOME` or `$CUDA_PATH`, where a driver of version `driver` loads what it makes.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is none.
    pub fn find(driver: Option<Version>) -> Result<Self> {
        let on_path = env::var_os("PATH").unwrap_or_default();
        let homes =
            ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(|home| Path::new(&home).join("bin"));
        let mut folders = env::split_paths(&on_path).chain(homes);
        let found = folders.find_map(|folder| Some(folder.join("nvcc")).filter(|file| file.is_file()));
        let path = found.ok_or_else(|| Error::device("no nvcc, the compiler of the CUDA toolkit, is on the path"))?;
        let nvcc = Self::at(&path)?;
        if nvcc.version.loads(driver) {
            Ok(nvcc)
        } else {
            Err(Error::device(nvcc.version.too_new(&path.display().to_string(), driver)))
        }
    }

    /// The one at `path`.
    ///
    /// # Errors
    /// `ERR_DEVICE` where it does not start, or says nothing that is understood.
    pub fn at(path: &Path) -> Result<Self> {
        let broken = |why: String| Error::device(format!("{}: {why}", path.display()));
        let ask = |option: &str| {
            let output = Command::new(path).arg(option).output().map_err(|e| broken(e.to_string()))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() { Ok(text) } else { Err(broken(format!("{option} failed ({})", output.status))) }
        };
        let answer = ask("--version")?;
        let release = answer.split_once("release ").and_then(|(_, rest)| Version::parse(rest.split(',').next()?));
        let version = release.ok_or_else(|| broken("its version is not understood".into()))?;
        if version < Version::OLDEST {
            return Err(broken(format!("nvcc {version} is older than {}", Version::OLDEST)));
        }
        let architectures = ask("--list-gpu-arch")?;
        let supported =
            architectures.lines().filter_map(|line| line.trim().strip_prefix("compute_")?.parse().ok()).collect();
        Ok(Self { path: path.to_owned(), version, supported })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The compute capabilities, times ten, that it compiles for.
    pub fn supported(&self) -> &[u32] {
        &self.supported
    }

    /// Compiles `job`.
    pub(super) fn compile(&self, job: &Job) -> Result<Compiled> {
        let failed = |e: std::io::Error| Error::device(format!("{}: {e}", self.path.display()));
        let folder = tempfile::tempdir().map_err(failed)?;
        let (text, image) = (folder.path().join("kernel.cu"), folder.path().join("kernel.cubin"));
        fs::write(&text, job.text()).map_err(failed)?;
        let command = Command::new(&self.path)
            .arg("--cubin")
            .args(job.options())
            .arg("--output-file")
            .arg(&image)
            .arg(&text)
            .output();
        let Output { status, stdout, stderr } = command.map_err(failed)?;
        let log = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        if !status.success() {
            return Err(job.refused(&format!("nvcc {} ({status})", self.version), &log));
        }
        Ok(Compiled { image: fs::read(&image).map_err(failed)?, log })
    }
}
