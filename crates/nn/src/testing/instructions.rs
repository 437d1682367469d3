//! The instructions that matrices are multiplied with on tensor cores, each alone (`cuda/instructions.cu`), against its formula in NVIDIA's "PTX ISA". What is
//! built on them is compared elsewhere; mistakes in two of them that cancel each other out show only here.

use super::{Rng, alone::run_kernel};
use alexnode_core::{Access, Args, Backend, Host, Kernel, KernelDef, Stage, Target, kernel::define};
use bytemuck::{cast_slice, cast_slice_mut};

/// The outputs of an instruction from a count and its inputs, all as words.
type Formula = fn(usize, &[&[u32]]) -> Vec<Vec<u32>>;

/// Defines a kernel of `instructions.cu`: its entry, arguments, threads of its only block and formula.
macro_rules! instruction {
    ($kernel:ident, $entry:literal, [$($access:ident),*], $threads:literal, $formula:expr) => {
        struct $kernel;
        impl Kernel for $kernel {
            type Params = i32;
            const NAME: &'static str = $entry;
            const SOURCE: &'static str = "instructions.cu";
            const ACCESS: &'static [Access] = &[$(Access::$access),*];
            fn run(count: &i32, args: &Args<'_>, _: &dyn Host) {
                run_formula($formula, *count, args, Self::ACCESS);
            }
            fn stages(_: &i32, _: &Target) -> Vec<Stage> {
                vec![Stage { threads: $threads, ..Stage::each($entry, 1) }]
            }
        }
    };
}

instruction!(ToTf32, "to_tf32", [Read, Write], 256, to_tf32);
instruction!(ToBf16, "to_bf16", [Read, Write], 256, to_bf16);
instruction!(Fragments, "fragments", [Read, Read, Write], 64, fragments);
instruction!(TransposedFragments, "transposed_fragments", [Read, Read, Write], 64, transposed_fragments);
instruction!(ProductTf32, "product_tf32", [Read, Read, Read, Write], 32, product_tf32);
instruction!(ProductBf16, "product_bf16", [Read, Read, Read, Write], 32, product_bf16);
instruction!(Copies, "copies", [Read, Read, Write, Write], 64, copies);

/// The formula as the body of a kernel.
fn run_formula(formula: Formula, count: i32, args: &Args<'_>, access: &[Access]) {
    let inputs: Vec<&[u32]> = (0..access.len()).filter(|i| !access[*i].writes()).map(|i| args.read(i)).collect();
    for (output, values) in formula(count as usize, &inputs).iter().enumerate() {
        args.write(inputs.len() + output).copy_from_slice(values);
    }
}

/// The nearest number with 10 bits behind the point, of two the one further from 0: `cvt.rna.tf32.f32`.
pub fn tf32(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits((x.to_bits() + 0x1000) & 0xffff_e000) } else { x }
}

/// The nearest number with 7 bits behind the point, of two the even one: `cvt.rn.bf16.f32`.
pub fn bf16(x: f32) -> f32 {
    let (kept, rest) = (x.to_bits() >> 16, x.to_bits() & 0xffff);
    let up = x.is_finite() && (rest > 0x8000 || (rest == 0x8000 && kept % 2 == 1));
    if x.is_nan() { x } else { f32::from_bits((kept + u32::from(up)) << 16) }
}

fn to_tf32(_: usize, inputs: &[&[u32]]) -> Vec<Vec<u32>> {
    vec![inputs[0].iter().map(|x| tf32(f32::from_bits(*x)).to_bits()).collect()]
}

fn to_bf16(_: usize, inputs: &[&[u32]]) -> Vec<Vec<u32>> {
    // NaN has one form, all bits of the magnitude.
    let half = |x: u32| if f32::from_bits(x).is_nan() { 0x7fff } else { bf16(f32::from_bits(x)).to_bits() >> 16 };
    vec![inputs[0].chunks_exact(2).map(|x| half(x[0]) | half(x[1]) << 16).collect()]
}

/// `ldmatrix.x4`: lane l gets two elements of each of four 8 x 8 matrices; lane 8 i + r named row r of matrix i. `element` is that with number e in 0..2.
fn load(inputs: &[&[u32]], element: fn(&[&[u16]], usize, usize) -> u16) -> Vec<Vec<u32>> {
    let memory: &[u16] = cast_slice(inputs[0]);
    let matrices = inputs[1].chunks_exact(8).flat_map(|rows| {
        let matrix: Vec<&[u16]> = rows.iter().map(|row| &memory[*row as usize * 8..][..8]).collect();
        (0..32).map(move |lane| u32::from(element(&matrix, lane, 0)) | u32::from(element(&matrix, lane, 1)) << 16)
    });
    vec![matrices.collect()]
}

fn fragments(_: usize, inputs: &[&[u32]]) -> Vec<Vec<u32>> {
    load(inputs, |matrix, lane, e| matrix[lane / 4][lane % 4 * 2 + e])
}

fn transposed_fragments(_: usize, inputs: &[&[u32]]) -> Vec<Vec<u32>> {
    load(inputs, |matrix, lane, e| matrix[lane % 4 * 2 + e][lane / 4])
}

/// `mma.m16n8k8` with tf32. Left: a0, a2 in row `group`, a1, a3 in row `group + 8`; a0, a1 in column `thread`, a2, a3 in column `thread + 4`.
/// Right: b0 in row `thread`, b1 in row `thread + 4`, column `group`.
fn product_tf32(_: usize, inputs: &[&[u32]]) -> Vec<Vec<u32>> {
    multiply(inputs, 8, |lane, i| (lane / 4 + i % 2 * 8, lane % 4 + i / 2 * 4), |lane, i| (lane % 4 + i * 4, lane / 4))
}

/// `mma.m16n8k16` with bf16, two elements per register. Left: a0, a1, a4, a5 in row `group`, the others in row `group + 8`; in column
/// `2 thread + (i & 1)`, a4 to a7 8 further. Right: b0, b1 in row `2 thread + (i & 1)`, b2, b3 8 further, column `group`.
fn product_bf16(_: usize, inputs: &[&[u32]]) -> Vec<Vec<u32>> {
    multiply(
        inputs,
        16,
        |lane, i| (lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8),
        |lane, i| (lane % 4 * 2 + i % 2 + i / 2 * 8, lane / 4),
    )
}

/// Two left factors of 16 x `depth` times two right ones of `depth` x 8, added to sums. `left` and `right` are row and column of element i of a lane. The right
/// factors share four registers: the first has the even ones. Of the sums, c0 and c1 are in row `group`, c2 and c3 in row `group + 8`, in column
/// `2 thread + (i & 1)`.
fn multiply(
    inputs: &[&[u32]],
    depth: usize,
    left: fn(usize, usize) -> (usize, usize),
    right: fn(usize, usize) -> (usize, usize),
) -> Vec<Vec<u32>> {
    let of_register = depth / 8;
    let element = |words: &[u32], register: usize, lane: usize, e: usize| {
        let word = words[register * 32 + lane];
        let bits = if of_register == 1 { word } else { (word >> (16 * e)) << 16 };
        f64::from(f32::from_bits(bits))
    };
    let mut y = inputs[2].to_vec();
    for (n, (m, y)) in y.chunks_exact_mut(128).enumerate().map(|(i, y)| (i % 2, (i / 2, y))) {
        let (mut a, mut b) = ([[0.0; 16]; 16], [[0.0; 8]; 16]);
        for lane in 0..32 {
            for i in 0..4 * of_register {
                let (row, column) = left(lane, i);
                a[row][column] = element(&inputs[0][m * 128..], i / of_register, lane, i % of_register);
            }
            for i in 0..2 * of_register {
                let (row, column) = right(lane, i);
                b[row][column] = element(inputs[1], i / of_register * 2 + n, lane, i % of_register);
            }
        }
        for (lane, i) in (0..32).flat_map(|lane| (0..4).map(move |i| (lane, i))) {
            let (row, column) = (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
            let sum: f64 = (0..depth).map(|k| a[row][k] * b[k][column]).sum();
            let y = &mut y[i * 32 + lane];
            *y = ((f64::from(f32::from_bits(*y)) + sum) as f32).to_bits();
        }
    }
    vec![y]
}

fn copies(stages: usize, inputs: &[&[u32]]) -> Vec<Vec<u32>> {
    let (mut y, mut z) = (Vec::new(), Vec::new());
    for (stage, t) in (0..stages).flat_map(|stage| (0..64).map(move |t| (stage, t))) {
        let from = stage * 64 + (t ^ 1);
        y.extend(if (stage + t) % 3 == 0 { [0; 4] } else { std::array::from_fn(|i| inputs[0][from * 4 + i]) });
        z.push(if (stage + t) % 5 == 0 { 0 } else { inputs[1][from] });
    }
    vec![y, z]
}

/// Numbers whose rounding is special, and others.
fn to_be_rounded() -> Vec<u32> {
    let mut numbers = Vec::new();
    for base in
        [0x3f80_0000, 0x3f81_0000, 0x3f80_2000, 0x0080_0000, 0x7f7f_0000, 0x7f7f_e000, 0x0000_0000, 0x0001_2000u32]
    {
        // Just below, at and just above the middle between two of either kind.
        let ends = [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x7fff, 0x8000, 0x8001, 0xefff, 0xf000, 0xffff];
        numbers.extend(ends.iter().flat_map(|end| [base + end, (base + end) | 0x8000_0000]));
    }
    numbers.extend([0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7f80_0001, 0xff80_1000, 0x7fff_ffff]);
    numbers.extend(Rng::new(31).normals(40, 1.0).iter().map(|x| x.to_bits()));
    numbers
}

/// Runs every instruction on slot 0 of `backend`, a CUDA device of sm_80 or later.
///
/// # Panics
/// Where one does not do what its formula says.
pub fn check_instructions(backend: &mut dyn Backend) {
    let mut rng = Rng::new(30);
    let mut words = |n: usize| (0..n).map(|_| rng.word()).collect::<Vec<u32>>();
    let (memory, chunks, singles) = (words(64 * 4), words(7 * 64 * 4), words(7 * 64));
    let rows: Vec<u32> = words(4 * 32).iter().map(|word| word % 64).collect();
    // Small whole numbers: every sum is exact, in any order.
    let small = |words: Vec<u32>| words.iter().map(|word| (word % 33) as f32 - 16.0).collect::<Vec<f32>>();
    let (a, b, sums) = (small(words(4 * 128)), small(words(2 * 128)), small(words(4 * 128)));
    let pairs = |x: &[f32]| x.chunks_exact(2).map(|x| x[0].to_bits() >> 16 | x[1].to_bits()).collect::<Vec<u32>>();
    let single = |x: &[f32]| x[..x.len() / 2].iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let sums: Vec<u32> = sums.iter().map(|x| x.to_bits()).collect();
    let numbers = to_be_rounded();

    let mut check = |kernel, formula: Formula, count: usize, inputs: &[&[u32]]| {
        against_formula(kernel, formula, count, inputs, backend);
    };
    for some in numbers.chunks(256) {
        let pairs = &some[..some.len() / 2 * 2];
        check(define::<ToTf32>(), to_tf32, some.len(), &[some]);
        check(define::<ToBf16>(), to_bf16, pairs.len() / 2, &[pairs]);
    }
    check(define::<Fragments>(), fragments, 0, &[&memory, &rows]);
    check(define::<TransposedFragments>(), transposed_fragments, 0, &[&memory, &rows]);
    check(define::<ProductTf32>(), product_tf32, 0, &[&single(&a), &single(&b), &sums]);
    check(define::<ProductBf16>(), product_bf16, 0, &[&pairs(&a), &pairs(&b), &sums]);
    for stages in [1, 2, 3, 7] {
        check(define::<Copies>(), copies, stages, &[&chunks, &singles]);
    }
}

/// Runs `kernel` on `inputs` and compares what it makes with `formula`.
fn against_formula(
    kernel: &'static KernelDef,
    formula: Formula,
    count: usize,
    inputs: &[&[u32]],
    backend: &mut dyn Backend,
) {
    let want = formula(count, inputs);
    let mut words: Vec<Vec<u32>> = inputs.iter().map(|words| words.to_vec()).collect();
    words.extend(want.iter().map(|values| vec![u32::MAX; values.len()]));
    let mut buffers: Vec<&mut [u8]> = words.iter_mut().map(|words| cast_slice_mut(words)).collect();
    run_kernel(kernel, count as i32, &mut buffers, backend);
    // Any NaN is as good as another, where it is not documented which.
    let nan = |word: u32| kernel.name == ToTf32::NAME && f32::from_bits(word).is_nan();
    for (got, want) in words[inputs.len()..].iter().zip(&want) {
        let wrong = got.iter().zip(want).position(|(got, want)| got != want && !(nan(*got) && nan(*want)));
        if let Some(i) = wrong {
            panic!("{}: word {i}: got {:#010x}, want {:#010x}", kernel.name, got[i], want[i]);
        }
    }
}
