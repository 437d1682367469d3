//! The product of matrices (`cuda/gemm.cuh`) alone, in every tile: layers choose theirs by size, and small ones never the large tiles.

use super::{Rng, alone::run_kernel, relative_error, rounded, wide};
use crate::layers::gemm::{Product, tiles};
use alexnode_core::{Access, Args, Backend, Engine, Host, Kernel, KernelDef, Precision, Stage, Target, kernel::define};
use bytemuck::{Pod, Zeroable, cast_slice_mut};

/// `c = a b^T`, and the tile to do it with.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    m: i32,
    n: i32,
    k: i32,
    /// Index into the table of tiles.
    tile: i32,
    /// Whether elements are loaded four at a time.
    vectors: i32,
}

/// Where element (i, k) of a matrix with so many rows lies.
type At = fn(p: &Params, i: usize, k: usize, rows: i32) -> usize;

/// Both matrices `[row][k]`. Arguments: a, b, c.
struct AlongK;
/// Both matrices `[k][row]`.
struct AlongRows;

impl Params {
    fn stages(&self, entry: &'static str, target: &Target) -> Vec<Stage> {
        let product = Product { m: self.m as usize, n: self.n as usize, times: 1, vectors: self.vectors != 0 };
        vec![product.stage_with(entry, &tiles(target)[self.tile as usize], target.precision)]
    }
    /// The formula, with element (i, k) of `a` and `b` at `at(p, i, k, rows)`.
    fn run(&self, args: &Args<'_>, at: At) {
        let (a, b, c) = (args.read::<f32>(0), args.read::<f32>(1), args.write::<f32>(2));
        for (i, c) in c.iter_mut().enumerate() {
            let (m, n) = (i / self.n as usize, i % self.n as usize);
            *c = (0..self.k as usize).map(|k| a[at(self, m, k, self.m)] * b[at(self, n, k, self.n)]).sum();
        }
    }
    fn along_k(&self, i: usize, k: usize, _: i32) -> usize {
        i * self.k as usize + k
    }
    fn along_rows(&self, i: usize, k: usize, rows: i32) -> usize {
        k * rows as usize + i
    }
}

impl Kernel for AlongK {
    type Params = Params;
    const NAME: &'static str = "product_along_k";
    const SOURCE: &'static str = "product.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    fn run(p: &Params, args: &Args<'_>, _: &dyn Host) {
        p.run(args, Params::along_k);
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        p.stages(Self::NAME, target)
    }
}

impl Kernel for AlongRows {
    type Params = Params;
    const NAME: &'static str = "product_along_rows";
    const SOURCE: &'static str = "product.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    fn run(p: &Params, args: &Args<'_>, _: &dyn Host) {
        p.run(args, Params::along_rows);
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        p.stages(Self::NAME, target)
    }
}

/// Every tile of the precision that `backend`, a CUDA device, computes in, on a result that is not a whole number of tiles; the smallest ones also with elements
/// loaded one by one. Returns the bits of all results.
///
/// # Panics
/// Where a product is not near its f64 reference.
pub fn check_products(backend: &mut dyn Backend) -> Vec<u32> {
    let Engine::Cuda(target) = backend.slots()[0].engine else { panic!("a CUDA device is needed") };
    let tiles = tiles(&target);
    let mut bits = Vec::new();
    for (index, tile) in tiles.iter().enumerate() {
        let [m, n] = [tile.m + 20, tile.n + 12].map(|n| n as i32);
        let mut check = |p| bits.extend(check_product(p, target.precision, backend));
        // The sum is longer than all stages, and ends within a set of terms.
        check(Params { m, n, k: 148, tile: index as i32, vectors: 1 });
        if index + 1 == tiles.len() {
            check(Params { m: m + 1, n: n - 3, k: 131, tile: index as i32, vectors: 0 });
            // Less than one set of terms.
            check(Params { m: 1, n: 1, k: 1, tile: index as i32, vectors: 0 });
        }
    }
    bits
}

fn check_product(p: Params, precision: Precision, backend: &mut dyn Backend) -> Vec<u32> {
    let mut rng = Rng::new(40 + p.tile as u64);
    let [a, b] = [p.m, p.n].map(|rows| rng.normals((rows * p.k) as usize, 1.0));
    let layouts: [(&'static KernelDef, At); 2] =
        [(define::<AlongK>(), Params::along_k), (define::<AlongRows>(), Params::along_rows)];
    let mut bits = Vec::new();
    for (kernel, at) in layouts {
        let mut run = |a: &[f32], b: &[f32]| {
            let (mut a, mut b, mut c) = (a.to_vec(), b.to_vec(), vec![f32::NAN; (p.m * p.n) as usize]);
            let buffers: &mut [&mut [u8]] =
                &mut [cast_slice_mut(&mut a), cast_slice_mut(&mut b), cast_slice_mut(&mut c)];
            run_kernel(kernel, p, buffers, backend);
            bits.extend(c.iter().map(|c| c.to_bits()));
            let (a, b) = (wide(&a), wide(&b));
            let element = |m, n| (0..p.k as usize).map(|k| a[at(&p, m, k, p.m)] * b[at(&p, n, k, p.n)]).sum::<f64>();
            let want: Vec<f64> = (0..c.len()).map(|i| element(i / p.n as usize, i % p.n as usize)).collect();
            relative_error(&c, &want)
        };
        // Factors that need no rounding tell mistakes from it.
        let exact = run(&rounded(&a, precision), &rounded(&b, precision));
        assert!(exact < 2e-6, "{} {p:?}, {precision}: error {exact:e} with rounded factors", kernel.name);
        if p.k == 1 {
            // One rounding, not the mean of many.
            continue;
        }
        let (least, most) = match precision {
            Precision::Fp32 => (0.0, 2e-6),
            Precision::Tf32 => (1e-4, 5e-4),
            Precision::Bf16 => (1e-3, 4e-3),
        };
        let error = run(&a, &b);
        assert!(error >= least && error < most, "{} {p:?}, {precision}: error {error:e}", kernel.name);
    }
    bits
}
