//! Kernels compiled for real devices, which takes no GPU: only NVRTC. Without it most of this is skipped, loudly.

use alexnode_core::{ErrorCode, Result};
use alexnode_cuda::{
    cache::Cache,
    compile::{Architecture, Compiler, Images, Job, Nvcc, Nvrtc, Pack, REMEDY, Version},
    program::Program,
    testing,
};
use std::{
    env, fs,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// NVRTC; none where it is not installed, which only a developer's machine may lack.
fn nvrtc() -> Option<Nvrtc> {
    testing::unless_missing(Nvrtc::find(None).map_err(|e| e.hint(REMEDY)), testing::NVRTC)
}

fn relu() -> Program {
    Program {
        source: "relu.cu",
        entry: "relu_forward",
        defines: Vec::new(),
        constants: None,
        params_bytes: 16,
        buffers: 1,
    }
}

/// A convolution as conv2 of the paper, in fp32.
fn conv2d(tile: i32) -> Program {
    let (k, stages) = (16, 2);
    Program {
        source: "conv2d.cu",
        entry: "conv2d_forward",
        defines: vec![
            ("PRECISION", 0),
            ("TILE_M", tile),
            ("TILE_N", tile),
            ("TILE_K", k),
            ("STAGES", stages),
            ("SHARED_BYTES", stages * (2 * tile + 8) * k * 4),
            ("WIDTH", 4),
        ],
        constants: Some(vec![128, 27, 27, 96, 96, 27, 27, 256, 256, 5, 1, 2, 2, 1]),
        params_bytes: 56,
        buffers: 5,
    }
}

/// Images from a cache in `folder`; how often a compiler was at work.
fn images(folder: &Path, packs: Vec<Pack>, programs: &[Program]) -> (Result<Vec<Vec<u8>>>, usize) {
    let compiled = AtomicUsize::new(0);
    let images = Images::with(packs, Cache::at(folder), None);
    let made = images.images(programs, 90, &|progress| {
        assert!(progress.done <= progress.total);
        compiled.store(progress.total, Ordering::Relaxed);
    });
    (made, compiled.into_inner())
}

#[test]
fn a_kernel_is_compiled_for_every_architecture() {
    let Some(nvrtc) = nvrtc() else { return };
    for compute in [75, 80, 86, 89, 90, 100, 120].into_iter().filter(|compute| nvrtc.supported().contains(compute)) {
        let architecture = Architecture { compute };
        for program in [relu(), conv2d(64)] {
            let job = Job::new(&program, architecture).unwrap();
            let compiled = nvrtc.compile(&job).unwrap();
            assert!(compiled.image.starts_with(b"\x7fELF"), "{architecture}");
            assert!(compiled.log.contains(&format!("'{}' for '{architecture}'", program.entry)), "{}", compiled.log);
            assert_eq!(compiled.image, nvrtc.compile(&job).unwrap().image, "the same text, other code");
        }
    }
}

#[test]
fn what_the_compiler_says_names_the_line() {
    let Some(nvrtc) = nvrtc() else { return };
    let error = |program: &Program| {
        let error = nvrtc.compile(&Job::new(program, Architecture { compute: 80 }).unwrap()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Kernel);
        error.message().to_owned()
    };
    let text = error(&conv2d(24));
    assert!(text.starts_with("conv2d_forward (sm_80): NVRTC "), "{text}");
    assert!(text.contains(".cuh(") && text.contains("error: static assertion failed"), "{text}");
    // A launch that passes something else than the kernel takes.
    let text = error(&Program { buffers: 2, ..relu() });
    assert!(text.contains("the launch passes parameters of 16 bytes and 2 buffers"), "{text}");
    let text = error(&Program { params_bytes: 20, ..relu() });
    assert!(text.contains("the launch passes parameters of 20 bytes and 1 buffers"), "{text}");
}

#[test]
fn an_entry_that_does_not_exist_is_an_error() {
    let job = |program: &Program| Job::new(program, Architecture { compute: 80 }).map(|job| job.key().to_owned());
    assert!(job(&Program { entry: "relu", ..relu() }).unwrap_err().message().contains("relu.cu: no entry relu"));
    assert!(job(&Program { source: "none.cu", ..relu() }).is_err());
}

#[test]
fn a_key_says_all_that_the_code_depends_on() {
    let key = |program: &Program, compute| Job::new(program, Architecture { compute }).unwrap().key().to_owned();
    let mut keys = vec![
        key(&relu(), 80),
        key(&relu(), 90),
        key(&Program { entry: "relu_backward", buffers: 2, ..relu() }, 80),
        key(&Program { defines: vec![("WIDTH", 4)], ..relu() }, 80),
        key(&Program { constants: Some(vec![1, 2, 3, 4]), ..relu() }, 80),
        key(&Program { constants: Some(vec![1, 2, 3, 5]), ..relu() }, 80),
        key(&conv2d(64), 80),
    ];
    assert_eq!(key(&relu(), 80), keys[0]);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 7);
}

#[test]
fn images_come_from_the_pack_then_the_cache_then_the_compiler() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    // The same program twice is compiled once.
    let programs = [relu(), conv2d(64), relu(), conv2d(32)];
    let (made, compiled) = images(&cache, Vec::new(), &programs);
    let made = made.unwrap();
    assert_eq!((made.len(), compiled), (4, 3));
    assert!(made[0] == made[2] && made[0] != made[1] && made[1] != made[3]);

    let (again, compiled) = images(&cache, Vec::new(), &programs);
    assert_eq!((again.unwrap() == made, compiled), (true, 0));
    // What is broken is made anew.
    for entry in fs::read_dir(&cache).unwrap() {
        fs::write(entry.unwrap().path(), "").unwrap();
    }
    let (again, compiled) = images(&cache, Vec::new(), &programs);
    assert_eq!((again.unwrap() == made, compiled), (true, 3));
    // A cache that cannot be written costs time, no more.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (again, compiled) = images(&file.join("cache"), Vec::new(), &programs);
    assert_eq!((again.unwrap() == made, compiled), (true, 3));

    let pack = || Pack::open(&folder.path().join("kernels"));
    assert!(pack().is_none());
    let new = Pack::create(&folder.path().join("kernels"), nvrtc.version()).unwrap();
    for (program, image) in programs.iter().zip(&made) {
        new.add(Job::new(program, Architecture { compute: 90 }).unwrap().key(), image).unwrap();
    }
    let (again, compiled) = images(&folder.path().join("empty"), pack().into_iter().collect(), &programs);
    assert_eq!((again.unwrap() == made, compiled), (true, 0));
    assert!(!folder.path().join("empty").exists(), "the cache was used");
    // A pack of a compiler that is too new for the driver is none.
    let old = Images::with(pack().into_iter().collect(), Cache::at(&cache), Some(Version { major: 11, minor: 8 }));
    let error = old.image(&relu(), 90).unwrap_err();
    assert!(error.message().contains("for CUDA 11.8, does not load"), "{error}");
}

#[test]
fn many_threads_may_ask_at_once() {
    if nvrtc().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shared = Images::with(Vec::new(), Cache::at(folder.path()), None);
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| all.lock().unwrap().push(shared.images(&[relu(), conv2d(32)], 80, &|_| {}).unwrap()));
        }
        scope.spawn(|| all.lock().unwrap().push(images(folder.path(), Vec::new(), &[relu()]).0.unwrap()));
    });
    let all = all.into_inner().unwrap();
    let full: Vec<_> = all.iter().filter(|images| images.len() == 2).collect();
    assert!(full.len() == 4 && full.iter().all(|images| *images == full[0]));
}

#[test]
fn a_device_that_the_compiler_does_not_know() {
    let Some(nvrtc) = nvrtc() else { return };
    let compiler = Compiler::Nvrtc(nvrtc);
    let error = compiler.architecture(Architecture { compute: 999 }).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Device);
    assert!(error.message().contains("does not compile for sm_999, only for sm_"), "{error}");
    assert!(error.remedy().is_some());
}

/// Without a compiler an error says how to get one. In a process of its own, as its environment differs.
#[test]
fn without_a_compiler_there_is_a_remedy() {
    const INSIDE: &str = "ALEXNODE_TEST_WITHOUT_COMPILER";
    if env::var_os(INSIDE).is_some() {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, compiled) = images(folder.path(), Vec::new(), &[relu()]);
        let error = outcome.unwrap_err();
        assert_eq!((error.code(), compiled), (ErrorCode::Device, 0));
        assert!(error.message().contains("no NVRTC") && error.message().contains("/nowhere/libnvrtc.so.13"), "{error}");
        assert!(error.remedy().unwrap().contains("pip install nvidia-cuda-nvrtc"));
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "without_a_compiler_there_is_a_remedy", "--nocapture"])
        .env(INSIDE, "1")
        .env("ALEXNODE_NVRTC", "/nowhere/libnvrtc.so.13")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// How nvcc is called, and what is made of its answers: by a script that stands in for it.
#[cfg(unix)]
#[test]
fn nvcc_serves_too() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (path, arguments) = (folder.path().join("nvcc"), folder.path().join("arguments"));
    let script = format!(
        "#!/bin/sh
case \"$1\" in
--version) echo 'Cuda compilation tools, release 13.1, V13.1.80'; exit;;
--list-gpu-arch) printf 'compute_75\\ncompute_80\\ncompute_90\\n'; exit;;
esac
echo \"$@\" > {}
for text; do true; done
grep -q 'define WIDTH 3' \"$text\" && echo \"kernel.cu(7): error: a width of 3\" >&2 && exit 2
(printf '\\177ELF'; head -c 100 /dev/zero) > \"$(echo \"$*\" | sed 's/.*--output-file \\([^ ]*\\) .*/\\1/')\"
",
        arguments.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let compiler = Compiler::Nvcc(Nvcc::at(&path).unwrap());
    assert_eq!(compiler.name(), "nvcc 13.1");
    let architecture = compiler.architecture(Architecture { compute: 89 }).unwrap();
    let compiled = compiler.compile(&Job::new(&conv2d(64), architecture).unwrap()).unwrap();
    assert_eq!(compiled.image.len(), 104);
    let arguments = fs::read_to_string(&arguments).unwrap();
    for expected in ["--cubin", "--gpu-architecture=sm_80", "--std=c++17"] {
        assert!(arguments.contains(expected), "{arguments}");
    }
    let wrong = Program { defines: vec![("WIDTH", 3)], ..relu() };
    let error = compiler.compile(&Job::new(&wrong, architecture).unwrap()).unwrap_err();
    assert!(error.message().contains("kernel.cu(7): error: a width of 3"), "{error}");
}
