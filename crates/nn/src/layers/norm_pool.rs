//! A local response normalisation and the max pooling right behind it as one operation each way, so that what lies between is never in
//! memory.

use super::{
    Layer, Needs, Reads,
    local_response_norm::{self, LocalResponseNorm, Scratch},
    max_pool2d::{self, MaxPool2d},
    pool::PoolParams,
    rows::FEW,
};
use crate::lower::{Lower, Tensor};
use alexnode_core::{
    Engine, Result, Shape, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};

/// The two layers. Not a layer that a network has: the plan makes it (`fusions.rs`).
#[derive(Clone, Copy, Debug)]
pub struct NormPool<'a> {
    /// The layer below.
    pub norm: &'a LocalResponseNorm,
    /// The layer above.
    pub pool: &'a MaxPool2d,
}

/// `norm` from x to what lies between, `pool` from there to y; its channels are those that y has. Only the tensors at the ends have an
/// `ld`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    norm: local_response_norm::Params,
    pool: PoolParams,
    /// Windows down and across, and channels, that a block of the CUDA kernel pools.
    tile_p: i32,
    tile_q: i32,
    chunk: i32,
}

/// Elements that a block of the forward CUDA kernel normalises, in shared memory.
const ROOM: usize = 8192;
/// The most channels among them: the fewer, the more often two blocks read the same ones at the seam.
const CHUNK: usize = 64;

/// Pieces of an image on the processor where there are fewer than [`FEW`].
const PIECES: usize = 8;
/// Elements that a task of the processor's backward pass computes: some 100 microseconds of work.
const TASK: usize = 128 * 1024;

impl Params {
    fn new(norm: local_response_norm::Params, pool: PoolParams) -> Self {
        let [h, w, p, q, c] = [pool.h, pool.w, pool.p, pool.q, pool.c].map(|n| n as usize);
        // The pixels that some neighbouring windows see, at most.
        let span = |windows: usize, extent: usize| {
            ((windows - 1).saturating_mul(pool.stride as usize).saturating_add(pool.size as usize)).min(extent)
        };
        let most = CHUNK.min(ROOM / (span(1, h) * span(1, w)));
        let chunk = c.div_ceil(c.div_ceil(most));
        let room = ROOM / chunk;
        // Pixels that all blocks of an image normalise together: the fewer, the fewer twice.
        let pixels = |windows: usize, tile: usize, extent: usize| {
            let rest = windows % tile;
            windows / tile * span(tile, extent) + if rest > 0 { span(rest, extent) } else { 0 }
        };
        let cost = |p_tile: usize, q_tile: usize| pixels(p, p_tile, h) * pixels(q, q_tile, w);
        let (mut tile, mut least) = ([1, 1], cost(1, 1));
        for p_tile in (1..=p).take_while(|n| span(*n, h) * span(1, w) <= room) {
            for q_tile in (1..=q).take_while(|n| span(p_tile, h) * span(*n, w) <= room) {
                let cost = cost(p_tile, q_tile);
                if cost < least {
                    (tile, least) = ([p_tile, q_tile], cost);
                }
            }
        }
        let [tile_p, tile_q] = tile.map(|n| n as i32);
        Self { norm, pool, tile_p, tile_q, chunk: chunk as i32 }
    }
    /// Rows of what lies between that a worker of the processor keeps: those of a window.
    fn rows(&self) -> usize {
        self.pool.size.min(self.pool.h) as usize
    }
    /// Elements of such a row.
    fn row(&self) -> usize {
        (self.pool.w * self.pool.c) as usize
    }
    /// The pooling of an image of what lies between, dense.
    fn of_image(&self) -> PoolParams {
        PoolParams { batch: 1, x_ld: self.pool.c, ..self.pool }
    }
    /// Bytes of scratch: a worker keeps `rows` rows of what lies between.
    fn scratch(&self, rows: usize, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => workers * rows * self.row() * 4,
            Engine::Cuda(_) => 0,
        }
    }
    /// A CUDA kernel with a block per tile of windows.
    fn forward_stages(&self, entry: &'static str) -> Vec<Stage> {
        let tiles = |windows: i32, tile: i32| (windows as usize).div_ceil(tile as usize);
        let (pool, chunks) = (&self.pool, (self.pool.c as usize).div_ceil(self.chunk as usize));
        let blocks = pool.batch as usize * tiles(pool.p, self.tile_p) * tiles(pool.q, self.tile_q);
        vec![Stage { constant: true, grid: [blocks as u32, chunks as u32, 1], ..Stage::each(entry, 0) }]
    }
    /// On the processor: tasks of some rows of windows of an image. Each row of what lies between is computed once in a task, and stays in a cache until the last
    /// window that sees it is pooled.
    fn forward(&self, x: &[f32], y: &mut [f32], places: Option<&mut [u8]>, space: &mut [f32], host: &dyn Host) {
        let (norm, pool, size) = (&self.norm, self.of_image(), self.rows() * self.row());
        let [c, p, q, h, w] = [pool.c, pool.p, pool.q, pool.h, pool.w].map(|n| n as usize);
        let (y, places, space) = (Shared::new(y), places.map(Shared::new), Shared::new(space));
        let (y_ld, x_ld, vertical) = (pool.y_ld as usize, norm.x_ld as usize, pool.vertical());
        // At a seam a row is computed twice: only where there are few images.
        let images = self.pool.batch as usize;
        let rows = if images < FEW { p.div_ceil(PIECES) } else { p };
        let pieces = p.div_ceil(rows);
        host.parallel(images * pieces, &|task, worker| {
            let (image, first) = (task / pieces, task % pieces * rows);
            // SAFETY: every worker has its own space, and runs one task at a time.
            let between = unsafe { space.range(worker * size, size) };
            let place = |row: usize| row % self.rows() * self.row();
            let (mut scratch, mut next) = (Scratch::new(), 0);
            for p_row in first..p.min(first + rows) {
                let seen = vertical.pixels(p_row);
                for row in seen.start.max(next)..seen.end {
                    let between = &mut between[place(row)..][..self.row()];
                    let x = &x[(image * h + row) * w * x_ld..];
                    local_response_norm::forward(norm, x, between, c, w, &mut scratch);
                }
                next = seen.end;
                let starts = std::array::from_fn(|i| place(seen.start + i));
                let at = (image * p + p_row) * q;
                // SAFETY: every row is visited once.
                let y = unsafe { y.range(at * y_ld, (q - 1) * y_ld + c) };
                // SAFETY: as above.
                let places = places.as_ref().map(|places| unsafe { places.range(at * c, q * c) });
                max_pool2d::forward(&pool, between, &starts, y, places, p_row);
            }
        });
    }
    /// On the processor: tasks of some rows of x.
    fn backward(&self, [x, dy]: [&[f32]; 2], places: &[u8], dx: &mut [f32], space: &mut [f32], host: &dyn Host) {
        let (norm, pool, size) = (&self.norm, self.of_image(), self.row());
        let [c, w] = [pool.c, pool.w].map(|n| n as usize);
        let [x_ld, dx_ld] = [norm.x_ld, norm.dx_ld].map(|n| n as usize);
        let (dx, space) = (Shared::new(dx), Shared::new(space));
        let (rows, each) = ((self.pool.batch * pool.h) as usize, (TASK / size).max(1));
        host.parallel(rows.div_ceil(each), &|task, worker| {
            // SAFETY: every worker has its own space, and runs one task at a time.
            let between = unsafe { space.range(worker * size, size) };
            let mut scratch = Scratch::new();
            for row in task * each..rows.min((task + 1) * each) {
                max_pool2d::backward(&pool, places, dy, between, row);
                // SAFETY: every row is visited once.
                let dx = unsafe { dx.range(row * w * dx_ld, (w - 1) * dx_ld + norm.c as usize) };
                local_response_norm::backward(norm, &x[row * w * x_ld..], between, c, dx, w, &mut scratch);
            }
        });
    }
}

/// Arguments: x, y, places (u8, compact), scratch.
struct NormPoolForward;
/// Without places, for evaluation. Arguments: x, y, scratch.
struct NormPoolInference;
/// Arguments: x, places, dy, dx, scratch.
struct NormPoolBackward;

const SOURCE: &str = "norm_pool.cu";

impl Kernel for NormPoolForward {
    type Params = Params;
    const NAME: &'static str = "norm_pool_forward";
    const SOURCE: &'static str = SOURCE;
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        p.scratch(p.rows(), engine)
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        p.forward(args.read(0), args.write(1), Some(args.write(2)), args.write(3), host);
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        p.forward_stages(Self::NAME)
    }
}

impl Kernel for NormPoolInference {
    type Params = Params;
    const NAME: &'static str = "norm_pool_inference";
    const SOURCE: &'static str = SOURCE;
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        p.scratch(p.rows(), engine)
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        p.forward(args.read(0), args.write(1), None, args.write(2), host);
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        p.forward_stages(Self::NAME)
    }
}

impl Kernel for NormPoolBackward {
    type Params = Params;
    const NAME: &'static str = "norm_pool_backward";
    const SOURCE: &'static str = SOURCE;
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        p.scratch(1, engine)
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        p.backward([args.read(0), args.read(2)], args.read(1), args.write(3), args.write(4), host);
    }
    /// A block per some pixels of x, as without the pooling.
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        p.norm.stages(Self::NAME)
    }
}

impl NormPool<'_> {
    /// From `x` to `y`, or back from `y` (dy) to `dx`.
    fn params(&self, cx: &Lower<'_>, y: Tensor, dx_ld: usize) -> Params {
        let between = Tensor { shape: cx.x.shape.with_channels(y.shape.c), ..cx.x };
        Params::new(self.norm.params(cx, 0, dx_ld), PoolParams::new(self.pool.window(), &between, &y))
    }
}

impl Layer for NormPool<'_> {
    fn kind(&self) -> &'static str {
        "LocalResponseNorm and MaxPool2d"
    }
    fn name(&self) -> &str {
        &self.pool.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        self.pool.output(self.norm.output(input)?)
    }
    fn reads(&self, towers: usize) -> Result<Reads> {
        self.norm.reads(towers)
    }
    fn needs(&self) -> Needs {
        self.norm.needs()
    }
    fn passes_relu(&self) -> bool {
        self.norm.passes_relu()
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let (x, y) = (cx.x, cx.y);
        let params = self.params(cx, y, 0);
        if cx.train {
            let places = cx.saved(y.rows() * y.shape.c);
            let scratch = cx.scratch::<NormPoolForward>(&params);
            cx.launch::<NormPoolForward>(params, &[x.arg(), y.arg(), places, scratch]);
        } else {
            let scratch = cx.scratch::<NormPoolInference>(&params);
            cx.launch::<NormPoolInference>(params, &[x.arg(), y.arg(), scratch]);
        }
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (x, dy) = (cx.x, cx.dy());
        let places = cx.saved(dy.rows() * dy.shape.c);
        let Some(dx) = cx.dx() else { return };
        let params = self.params(cx, dy, dx.ld);
        let scratch = cx.scratch::<NormPoolBackward>(&params);
        cx.launch::<NormPoolBackward>(params, &[x.arg(), places, dy.arg(), dx.arg(), scratch]);
    }
}
