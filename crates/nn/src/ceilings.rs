//! What a device can do at most: bytes copied and numbers multiplied and added per second. Measured, on the device at hand, so that the times of
//! [`timing`](crate::timing) have something to be compared with.
//!
//! Kernels of the usual kind, with nothing in the way: a copy within the device's memory, and multiply-adds on registers; on tensor cores by `mma.sync`,
//! which the layers use (later devices have faster instructions).

use crate::{
    layers::linear::LinearForward,
    tile::{Vector, Work, with_vectors},
    timing::{SlotName, Spread, TimingOptions, repeats, sample},
};
use alexnode_core::{
    Backend, BufferId, Engine, Error, ErrorCode, Launch, Precision, Result, SlotId, Stage, Target, View,
    host::{Host, parallel_chunks},
    kernel::{Access, Args, Kernel, KernelDef, define},
};
use bytemuck::{Pod, Zeroable};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

/// The constants of [`CopyCeiling`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CopyCeilingParams {
    /// 16-byte vectors.
    pub vectors: u32,
}

/// to = from. Arguments: from, to.
#[derive(Debug)]
pub struct CopyCeiling;

impl Kernel for CopyCeiling {
    type Params = CopyCeilingParams;
    const NAME: &'static str = "copy_ceiling";
    const SOURCE: &'static str = "ceilings.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    fn run(p: &CopyCeilingParams, args: &Args<'_>, host: &dyn Host) {
        const TASK: usize = 256 << 10;
        let bytes = p.vectors as usize * VECTOR;
        let (from, to) = (args.read::<u8>(0), &mut args.write::<u8>(1)[..bytes]);
        parallel_chunks(host, to, TASK, |i, to| to.copy_from_slice(&from[i * TASK..][..to.len()]));
    }
    fn stages(p: &CopyCeilingParams, _: &Target) -> Vec<Stage> {
        // Four vectors a thread.
        vec![Stage::each(Self::NAME, (p.vectors as usize).div_ceil(4))]
    }
}

/// The constants of [`MultiplyCeiling`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct MultiplyCeilingParams {
    /// Numbers of the result.
    pub items: u32,
    /// Multiply-adds of each chain.
    pub rounds: u32,
}

/// Chains of an item, as in the `.cu`.
const CHAINS: usize = 8;

impl MultiplyCeilingParams {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        2.0 * f64::from(self.items) * f64::from(self.rounds) * CHAINS as f64
    }
}

/// Of item i [`CHAINS`] numbers x = 1, 2, ...; each becomes x factor(i) + term(i) again and again; y = their sum. Arguments: y.
#[derive(Debug)]
pub struct MultiplyCeiling;

impl Kernel for MultiplyCeiling {
    type Params = MultiplyCeilingParams;
    const NAME: &'static str = "multiply_ceiling";
    const SOURCE: &'static str = "ceilings.cu";
    const ACCESS: &'static [Access] = &[Access::Write];
    fn run(p: &MultiplyCeilingParams, args: &Args<'_>, host: &dyn Host) {
        // A multiple of the lanes: the factors and terms of every task are those of the first one.
        const TASK: usize = 32 * LANES;
        let y = &mut args.write::<f32>(0)[..p.items as usize];
        parallel_chunks(host, y, TASK, |_, y| {
            for y in y.chunks_mut(LANES) {
                with_vectors(Chains { rounds: p.rounds, y });
            }
        });
    }
    fn stages(p: &MultiplyCeilingParams, _: &Target) -> Vec<Stage> {
        vec![Stage::each(Self::NAME, p.items as usize)]
    }
}

/// Items that the processor computes at once, at most: after so many, factors and terms repeat.
const LANES: usize = 16;

/// The factors and terms of the first items, as in the `.cu`.
pub fn factors_and_terms() -> ([f32; LANES], [f32; LANES]) {
    let factor = |i: usize| (1023 - i % 8) as f32 / 1024.0;
    let term = |i: usize| (1 + i % 4) as f32 / 1024.0;
    (std::array::from_fn(factor), std::array::from_fn(term))
}

/// [`LANES`] items at most, by the vectors that layers multiply with.
struct Chains<'a> {
    rounds: u32,
    y: &'a mut [f32],
}

impl Work for Chains<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (factors, terms) = factors_and_terms();
        for (i, y) in self.y.chunks_mut(V::LANES).enumerate() {
            let mut sums = [0.0; LANES];
            // SAFETY: the arrays have whole vectors; the processor has the instructions (the caller's promise).
            unsafe {
                let (factor, term) =
                    (V::load(factors.as_ptr().add(i * V::LANES)), V::load(terms.as_ptr().add(i * V::LANES)));
                let mut x: [V; CHAINS] = std::array::from_fn(|chain| V::splat(&(1.0 + chain as f32)));
                for _ in 0..self.rounds {
                    x = x.map(|x| term.add_product(x, factor));
                }
                x.into_iter().fold(V::splat(&0.0), |sum, x| sum.add(x)).store(sums.as_mut_ptr());
            }
            y.copy_from_slice(&sums[..y.len()]);
        }
    }
}

/// The constants of [`TensorCeiling`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct TensorCeilingParams {
    /// Warps, each with 32 numbers of the result.
    pub warps: u32,
    /// Products of each.
    pub rounds: u32,
}

/// Products of matrices on tensor cores, with factors of tf32 or, `BF16`, of bf16. Each warp multiplies 32 x K by K x 64 numbers again and again, K = 8 or
/// 16. y = of each of its threads the sum of 64 sums. Arguments: y.
#[derive(Debug)]
pub struct TensorCeiling<const BF16: bool>;

impl<const BF16: bool> TensorCeiling<BF16> {
    /// Factors of each sum in a round.
    const K: usize = if BF16 { 16 } else { 8 };
    /// Sums of a warp.
    const SUMS: usize = 32 * 64;
    /// Multiplications and additions.
    pub fn flops(params: &TensorCeilingParams) -> f64 {
        2.0 * f64::from(params.warps) * f64::from(params.rounds) * (Self::SUMS * Self::K) as f64
    }
    /// Every number of the result: factors depend on their place along k only, so all sums are the same.
    pub fn result(rounds: u32) -> f32 {
        let product = |word: usize| {
            let (left, right) = (1.0 + 0.125 * word as f32, 1.0 + 0.25 * word as f32);
            let sign = if word.is_multiple_of(2) { 1.0 } else { -0.75 };
            left / 64.0 * (sign * right / 64.0)
        };
        let each_word = (Self::K / 4) as f32;
        (Self::SUMS / 32) as f32 * rounds as f32 * each_word * (0..4).map(product).sum::<f32>()
    }
}

impl<const BF16: bool> Kernel for TensorCeiling<BF16> {
    type Params = TensorCeilingParams;
    const NAME: &'static str = if BF16 { "bf16_ceiling" } else { "tf32_ceiling" };
    const SOURCE: &'static str = "tensor_ceilings.cu";
    const ACCESS: &'static [Access] = &[Access::Write];
    /// A processor has no tensor cores: it only says what they would.
    fn run(p: &TensorCeilingParams, args: &Args<'_>, _: &dyn Host) {
        args.write::<f32>(0)[..32 * p.warps as usize].fill(Self::result(p.rounds));
    }
    fn stages(p: &TensorCeilingParams, _: &Target) -> Vec<Stage> {
        vec![Stage::each(Self::NAME, 32 * p.warps as usize)]
    }
}

/// The kernels that measure a CUDA device in `precision`.
pub fn kernels(precision: Precision) -> Vec<&'static KernelDef> {
    let mut kernels = vec![define::<CopyCeiling>(), define::<MultiplyCeiling>()];
    match precision {
        Precision::Fp32 => {}
        Precision::Tf32 => kernels.push(define::<TensorCeiling<false>>()),
        Precision::Bf16 => kernels.push(define::<TensorCeiling<true>>()),
    }
    kernels
}

/// What a device can do at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ceilings {
    /// The device.
    pub slot: SlotName,
    /// Bytes per second, read and written, of a copy within its memory.
    pub copy: Spread,
    /// Multiplications and additions per second, by precision: those that the device was opened with.
    pub multiply: BTreeMap<String, Spread>,
    /// Multiplications and additions per second of a product of large matrices, by the kernel of linear layers. `None` on CUDA devices.
    pub gemm: Option<Spread>,
}

/// Bytes of a vector.
const VECTOR: usize = 16;
/// Multiply-adds of a chain between start and end of a thread.
const ROUNDS: u32 = 512;
/// The ceilings need longer samples than operations do: the beginning and the end of a launch are idle.
const SAMPLE: f64 = 5.0;

/// Measures slot 0 of `backend`.
///
/// # Errors
/// `ERR_USAGE` for options that make no sense, `ERR_ABORTED` where `cancel` is set, `ERR_DEVICE` where there is no memory.
pub fn measure(backend: &mut dyn Backend, options: &TimingOptions, cancel: &AtomicBool) -> Result<Ceilings> {
    options.check()?;
    let mut bench = Bench { backend, options, cancel };
    let copy = bench.copy()?;
    let mut multiply = BTreeMap::from([(Precision::Fp32.to_string(), bench.multiply()?)]);
    let on_tensor_cores = match bench.backend.slots()[0].engine {
        Engine::Cuda(Target { precision: precision @ Precision::Tf32, .. }) => {
            Some((precision, bench.products::<false>()?))
        }
        Engine::Cuda(Target { precision: precision @ Precision::Bf16, .. }) => {
            Some((precision, bench.products::<true>()?))
        }
        _ => None,
    };
    multiply.extend(on_tensor_cores.map(|(precision, rate)| (precision.to_string(), rate)));
    let gemm = match bench.backend.slots()[0].engine {
        Engine::Host { workers } => Some(bench.gemm(workers)?),
        Engine::Cuda(_) => None,
    };
    let slot = SlotName::all(bench.backend).swap_remove(0);
    Ok(Ceilings { slot, copy, multiply, gemm })
}

struct Bench<'a> {
    backend: &'a mut dyn Backend,
    options: &'a TimingOptions,
    cancel: &'a AtomicBool,
}

impl Bench<'_> {
    /// Bytes per second. Beyond what caches hold, unless that would take long or there is little memory.
    fn copy(&mut self) -> Result<Spread> {
        let most = self.backend.slots()[0].free.map_or(usize::MAX, |free| free / 4);
        // The caches of processors are larger, and their copies slower.
        let sizes: &[usize] = match self.backend.slots()[0].engine {
            Engine::Host { .. } => &[16 << 20, 256 << 20],
            Engine::Cuda(_) => &[16 << 20, 64 << 20, 256 << 20, 512 << 20],
        };
        self.largest(sizes.iter().copied().filter(|bytes| *bytes <= most), |bytes| {
            let params = CopyCeilingParams { vectors: (bytes / VECTOR) as u32 };
            Measured::new::<CopyCeiling>(params, vec![bytes, bytes], 2.0 * bytes as f64)
        })
    }

    /// Multiplications and additions per second in fp32.
    fn multiply(&mut self) -> Result<Spread> {
        self.largest([1 << 14, 1 << 17, 1 << 20, 1 << 22], |items| {
            let params = MultiplyCeilingParams { items: items as u32, rounds: ROUNDS };
            Measured::new::<MultiplyCeiling>(params, vec![items * 4], params.flops())
        })
    }

    /// Multiplications and additions per second of the kernel of linear layers, on `workers` workers: of the size at which it is fastest.
    fn gemm(&mut self, workers: usize) -> Result<Spread> {
        const BATCH: usize = 128;
        let mut best = Spread::default();
        for inputs in [512, 1024, 2048, 4096] {
            let rate = self.largest([inputs], |inputs| {
                let (params, buffers) = LinearForward::plain(BATCH, inputs, inputs, workers);
                let flops = 2.0 * (BATCH * inputs * inputs) as f64;
                Measured::new::<LinearForward>(params, buffers.to_vec(), flops)
            })?;
            if rate.median > best.median {
                best = rate;
            }
        }
        Ok(best)
    }

    /// Multiplications and additions per second on tensor cores.
    fn products<const BF16: bool>(&mut self) -> Result<Spread> {
        self.largest([(64, 16), (1 << 10, 64), (1 << 14, 256), (1 << 16, 256)], |(warps, rounds)| {
            let params = TensorCeilingParams { warps, rounds };
            let flops = TensorCeiling::<BF16>::flops(&params);
            Measured::new::<TensorCeiling<BF16>>(params, vec![warps as usize * 32 * 4], flops)
        })
    }

    /// The rate of the first size whose launch takes as long as a sample shall; of the last one if none does.
    fn largest<T>(&mut self, sizes: impl IntoIterator<Item = T>, work: impl Fn(T) -> Measured) -> Result<Spread> {
        let wanted = SAMPLE * self.options.sample_seconds;
        let mut rate = Err(Error::device("there is not enough memory to measure a copy"));
        for size in sizes {
            let work = work(size);
            let mut buffers = Vec::new();
            let outcome = self.rate(&work, &mut buffers, wanted);
            for buffer in buffers {
                self.backend.free(buffer);
            }
            let (seconds, measured) = outcome?;
            rate = Ok(measured);
            if seconds >= wanted {
                break;
            }
        }
        rate
    }

    /// Seconds of a launch, and the rate of `work`.
    fn rate(&mut self, work: &Measured, buffers: &mut Vec<BufferId>, wanted: f64) -> Result<(f64, Spread)> {
        let mut views = Vec::new();
        for bytes in &work.buffers {
            let buffer = self.backend.alloc(SlotId(0), *bytes)?;
            buffers.push(buffer);
            views.push(View { buffer, offset: 0, bytes: *bytes });
            self.fill(views[views.len() - 1])?;
        }
        let launch = Launch::new(work.kernel, &work.params, &views);
        let mut run = |times: usize| {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorCode::Aborted, "the measurement was stopped"));
            }
            sample(self.backend, times, |backend| backend.launch(SlotId(0), &launch))
        };
        // The first time loads code and touches memory.
        run(1)?;
        let seconds = run(1)?;
        let times = repeats(seconds, wanted);
        let samples = (0..self.options.rounds).map(|_| run(times)).collect::<Result<Vec<_>>>()?;
        Ok((seconds, Spread::of(&samples).rate(work.amount)))
    }

    /// Numbers from 1 to 2 without a pattern: some devices are faster on zeros, and others slower on numbers that are hardly any.
    fn fill(&mut self, view: View) -> Result<()> {
        const PIECE: usize = 4 << 20;
        let mut state = 1u64;
        let mut word = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 41) as u32 | 1f32.to_bits()
        };
        let words: Vec<u32> = (0..PIECE.min(view.bytes) / 4).map(|_| word()).collect();
        let piece: &[u8] = bytemuck::cast_slice(&words);
        (0..view.bytes).step_by(PIECE).try_for_each(|offset| {
            let bytes = PIECE.min(view.bytes - offset);
            self.backend.upload(view.slice(offset, bytes), &piece[..bytes])
        })
    }
}

/// Something to be launched.
struct Measured {
    kernel: &'static KernelDef,
    params: Vec<u8>,
    /// The bytes of its arguments.
    buffers: Vec<usize>,
    /// What it does, in bytes or operations.
    amount: f64,
}

impl Measured {
    fn new<K: Kernel>(params: K::Params, buffers: Vec<usize>, amount: f64) -> Self {
        Self { kernel: define::<K>(), params: bytemuck::bytes_of(&params).to_vec(), buffers, amount }
    }
}
