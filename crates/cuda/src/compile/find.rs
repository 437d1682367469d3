//! Where NVRTC may lie. Nothing is started or loaded here: only folders are looked at.

use crate::cache::Cache;
use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// The variable by which a user names the library, or its folder.
pub(super) const VARIABLE: &str = "ALEXNODE_NVRTC";

/// What the user named.
pub(super) fn named() -> Option<PathBuf> {
    variable(VARIABLE).map(PathBuf::from)
}

/// The libraries to be tried, in order: the one that the user named; that beside this program; that which `npm run nvrtc:install` put into the
/// cache; those of a toolkit; what the system's loader finds; those of Python packages.
pub(super) fn candidates() -> Vec<PathBuf> {
    if let Some(named) = named() {
        return if named.is_dir() { in_folder(&named) } else { vec![named] };
    }
    let own = beside().into_iter().chain([Cache::of_user().folder().to_owned()]).map(|folder| folder.join("nvrtc"));
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable).map(PathBuf::from);
    let toolkits =
        toolkits.chain([PathBuf::from("/usr/local/cuda")]).flat_map(|home| [home.join("lib64"), home.join("lib")]);
    let mut found: Vec<PathBuf> = own.chain(toolkits).flat_map(|folder| in_folder(&folder)).collect();
    found.extend(["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(PathBuf::from));
    found.extend(of_python().iter().flat_map(|folder| in_folder(folder)));
    found
}

/// The folder of the library, or of the program, that contains this function.
pub(super) fn beside() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: any address may be asked about; the name lives as long as the library, which is running.
    let name = unsafe {
        if libc::dladdr(beside as *const libc::c_void, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(info.dli_fname)
    };
    let path = fs::canonicalize(name.to_str().ok()?).ok()?;
    path.parent().map(Path::to_owned)
}

/// The libraries in `folder`, the newest first.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("libnvrtc.so")?;
            Some((version.split('.').filter_map(|number| number.parse().ok()).collect(), entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The folders of NVIDIA's Python packages in the environments that a shell has activated, or whose interpreter is the first on the path.
fn of_python() -> Vec<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).map(PathBuf::from);
    let path = variable("PATH").unwrap_or_default();
    let interpreter = env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.is_file());
    let installed = interpreter
        .and_then(|file| fs::canonicalize(file).ok())
        .and_then(|file| Some(file.parent()?.parent()?.to_owned()));
    let user = variable("HOME").map(|home| PathBuf::from(home).join(".local"));
    let mut folders = Vec::new();
    for home in active.chain(installed).chain(user) {
        for version in subfolders(&home.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                let nvidia = version.join(packages).join("nvidia");
                folders.push(nvidia.join("cu13/lib"));
                folders.push(nvidia.join("cuda_nvrtc/lib"));
            }
        }
        // Conda's packages lie where a system's would.
        folders.push(home.join("lib"));
    }
    folders
}

fn subfolders(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_library_of_a_folder_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "libnvrtc.so",
            "libnvrtc.so.12",
            "libnvrtc.so.13",
            "libnvrtc.so.13.0.88",
            "libnvrtc.alt.so.13",
            "libnvrtc-builtins.so.13.0",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = in_folder(folder.path());
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["libnvrtc.so.13.0.88", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]);
        assert!(in_folder(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn this_program_knows_where_it_lies() {
        let program = fs::canonicalize(env::current_exe().unwrap()).unwrap();
        assert_eq!(beside().as_deref(), program.parent());
    }
}
