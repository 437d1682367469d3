//! NVRTC, NVIDIA's compiler as a library: text in, machine code out, no GPU and no headers needed. Loaded at run time from the very file that was
//! found, through `libloading`: bindings that look for libraries by themselves would take another one, and do not see the trap of
//! [`Nvrtc::load`].

use super::{Compiled, Job, Version, find};
use alexnode_core::{Error, Result};
use libloading::Library;
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    fs,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    ptr,
};

/// A program of NVRTC.
type Handle = *mut c_void;
/// 0 where all went well.
type Code = c_int;

/// The functions that are used here, as `nvrtc.h` declares them.
#[derive(Debug)]
struct Functions {
    error_string: unsafe extern "C" fn(Code) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Handle,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Code,
    compile: unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> Code,
    log_size: unsafe extern "C" fn(Handle, *mut usize) -> Code,
    log: unsafe extern "C" fn(Handle, *mut c_char) -> Code,
    cubin_size: unsafe extern "C" fn(Handle, *mut usize) -> Code,
    cubin: unsafe extern "C" fn(Handle, *mut c_char) -> Code,
    destroy: unsafe extern "C" fn(*mut Handle) -> Code,
}

/// The library, loaded. May be used by several threads at a time.
#[derive(Debug)]
pub struct Nvrtc {
    path: PathBuf,
    version: Version,
    supported: Vec<u32>,
    functions: Functions,
    /// Never unloaded: it keeps state of its own for the life of the process.
    _library: ManuallyDrop<Library>,
}

impl Nvrtc {
    /// The first one that is found and that makes code which a driver of version `driver` loads.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is none, with what was found instead.
    pub fn find(driver: Option<Version>) -> Result<Self> {
        let mut refused = Vec::new();
        for path in find::candidates() {
            match Self::load(&path) {
                Ok(found) if found.version.loads(driver) => return Ok(found),
                Ok(found) => refused.push(found.version.too_new(&path.display().to_string(), driver)),
                // A name for the loader that finds nothing is no news.
                Err(_) if path.components().count() == 1 => {}
                Err(error) => refused.push(error.message().to_owned()),
            }
            // What the user names is taken, or nothing.
            if find::named().is_some() {
                break;
            }
        }
        if refused.is_empty() {
            refused.push("it is not installed".into());
        }
        Err(Error::device(format!("no NVRTC, NVIDIA's compiler of kernels: {}", refused.join("; "))))
    }

    /// Loads the library at `path`: a file name, or the name that the system's loader looks for.
    ///
    /// # Errors
    /// `ERR_DEVICE` where it cannot be loaded or is older than this program's kernels.
    pub fn load(path: &Path) -> Result<Self> {
        let broken = |e: libloading::Error| Error::device(format!("{}: {e}", path.display()));
        // It opens libnvrtc-builtins by name when it compiles, and that of a Python package does not find it in its own folder. A library
        // of that name that is loaded already is found anywhere.
        for builtins in builtins_beside(path) {
            // SAFETY: data of NVRTC, without initialisers. Kept for ever, as NVRTC itself.
            let _ = unsafe { Library::new(builtins) }.map(ManuallyDrop::new);
        }
        // SAFETY: NVRTC may be loaded anywhere; its initialisers only set up itself.
        let library = ManuallyDrop::new(unsafe { Library::new(path) }.map_err(broken)?);
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is that of nvrtc.h, unchanged since CUDA 11.1.
                *unsafe { library.get($name) }.map_err(broken)?
            };
        }
        let functions = Functions {
            error_string: function!(b"nvrtcGetErrorString"),
            create: function!(b"nvrtcCreateProgram"),
            compile: function!(b"nvrtcCompileProgram"),
            log_size: function!(b"nvrtcGetProgramLogSize"),
            log: function!(b"nvrtcGetProgramLog"),
            cubin_size: function!(b"nvrtcGetCUBINSize"),
            cubin: function!(b"nvrtcGetCUBIN"),
            destroy: function!(b"nvrtcDestroyProgram"),
        };
        let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Code = function!(b"nvrtcVersion");
        let count: unsafe extern "C" fn(*mut c_int) -> Code = function!(b"nvrtcGetNumSupportedArchs");
        let list: unsafe extern "C" fn(*mut c_int) -> Code = function!(b"nvrtcGetSupportedArchs");
        let (mut major, mut minor, mut architectures) = (0, 0, 0);
        // SAFETY: all three outlive the calls.
        unsafe {
            functions.check(version(&mut major, &mut minor))?;
            functions.check(count(&mut architectures))?;
        }
        let version = Version { major: major as u32, minor: minor as u32 };
        if version < Version::OLDEST {
            let oldest = Version::OLDEST;
            return Err(Error::device(format!("{}: NVRTC {version} is older than {oldest}", path.display())));
        }
        let mut supported = vec![0; architectures as usize];
        // SAFETY: as many numbers as NVRTC said.
        functions.check(unsafe { list(supported.as_mut_ptr()) })?;
        let supported = supported.into_iter().map(|compute| compute as u32).collect();
        Ok(Self { path: path.to_owned(), version, supported, functions, _library: library })
    }

    /// Where it was loaded from.
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
    ///
    /// # Errors
    /// `ERR_KERNEL` with the compiler's own words.
    pub fn compile(&self, job: &Job) -> Result<Compiled> {
        let Functions { create, compile, log_size, log, cubin_size, cubin, .. } = &self.functions;
        let c = |text: &str| {
            CString::new(text).map_err(|_| Error::kernel(format!("{}: a zero byte in its text", job.entry())))
        };
        let (text, name) = (c(job.text())?, c(job.source())?);
        let options = job.options().map(|option| c(&option)).collect::<Result<Vec<_>>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();

        let mut program = Program { functions: &self.functions, handle: ptr::null_mut() };
        // SAFETY: the strings outlive the calls, and every buffer is as long as NVRTC says.
        unsafe {
            let code = create(&mut program.handle, text.as_ptr(), name.as_ptr(), 0, ptr::null(), ptr::null());
            self.functions.check(code)?;
            let outcome = compile(program.handle, pointers.len() as c_int, pointers.as_ptr());
            let mut bytes = 0;
            self.functions.check(log_size(program.handle, &mut bytes))?;
            let mut written = vec![0u8; bytes];
            self.functions.check(log(program.handle, written.as_mut_ptr().cast()))?;
            let log = String::from_utf8_lossy(&written).trim_end_matches('\0').trim().to_owned();
            if let Err(error) = self.functions.check(outcome) {
                return Err(job.refused(&format!("NVRTC {} ({error})", self.version), &log));
            }
            self.functions.check(cubin_size(program.handle, &mut bytes))?;
            let mut image = vec![0u8; bytes];
            self.functions.check(cubin(program.handle, image.as_mut_ptr().cast()))?;
            Ok(Compiled { image, log })
        }
    }
}

impl Functions {
    fn check(&self, code: Code) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC returns a string that lives for ever, for every code.
        let text = unsafe { CStr::from_ptr((self.error_string)(code)) };
        Err(Error::kernel(text.to_string_lossy()))
    }
}

/// Destroys the program however its compilation ends.
struct Program<'a> {
    functions: &'a Functions,
    handle: Handle,
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: made by `create`, destroyed once.
            unsafe { (self.functions.destroy)(&mut self.handle) };
        }
    }
}

/// The libraries of builtins in the folder of `path`.
fn builtins_beside(path: &Path) -> Vec<PathBuf> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Vec::new() };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so"));
    named.map(|entry| entry.path()).collect()
}
