//! Compiling, many at a time.

use crate::{figures::Figures, wanted::Kernel};
use alexnode_core::Result;
use alexnode_cuda::compile::{Architecture, Compiler};
use rayon::prelude::*;
use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

/// A kernel for an architecture.
pub type Pair<'k> = (&'k Kernel, Architecture);

/// How often it is said how far the work is.
const NOTICE: Duration = Duration::from_secs(10);

/// Compiles `pairs`, on as many processors as there are; `done` gets each outcome as it comes.
///
/// # Errors
/// Only those of `done`: a kernel that cannot be compiled is an outcome.
pub fn compile<'k>(
    compiler: &Compiler,
    pairs: &[Pair<'k>],
    mut done: impl FnMut(Pair<'k>, Result<Figures>) -> Result<()>,
) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    let (start, total) = (Instant::now(), pairs.len());
    eprintln!("{}: compiling {total} kernels", compiler.name());
    let one = |(kernel, architecture): Pair<'_>| {
        let compiled = compiler.compile(&kernel.job(architecture)?)?;
        Figures::read(&compiled.log)
    };
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        scope.spawn(move || {
            pairs.par_iter().for_each_with(send, |send, pair| {
                // Nobody listens any more where `done` has failed.
                let _ = send.send((*pair, one(*pair)));
            });
        });
        let mut said = start;
        for (count, (pair, outcome)) in receive.into_iter().enumerate() {
            done(pair, outcome)?;
            if said.elapsed() > NOTICE {
                said = Instant::now();
                eprintln!("  {} of {total} after {:.0} s", count + 1, start.elapsed().as_secs_f64());
            }
        }
        eprintln!("  done in {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    })
}
