//! Kernels that belong to no layer: the sum of gradients which arrive from two sides.

use crate::{
    layers::rows::rows,
    lower::{Builder, Origin, Tensor},
};
use alexnode_core::{
    SlotId, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};

/// `rows` rows of `c` elements.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AddParams {
    /// Rows.
    pub rows: i32,
    /// Elements of a row.
    pub c: i32,
    /// Elements from one row of `dst` to the next.
    pub dst_ld: i32,
    /// Elements from one row of `src` to the next.
    pub src_ld: i32,
}

/// dst += src. Arguments: dst, src.
#[derive(Debug)]
pub struct Add;

impl Kernel for Add {
    type Params = AddParams;
    const NAME: &'static str = "add";
    const SOURCE: &'static str = "add.cu";
    const ACCESS: &'static [Access] = &[Access::ReadWrite, Access::Read];
    fn run(p: &AddParams, args: &Args<'_>, host: &dyn Host) {
        let dst = Shared::new(args.write::<f32>(0));
        let src = args.read::<f32>(1);
        let contiguous = p.dst_ld == p.c && p.src_ld == p.c;
        rows(host, p.rows as usize, p.c as usize, contiguous, |row, len| {
            let src = &src[row * p.src_ld as usize..][..len];
            // SAFETY: every row is visited once.
            let dst = unsafe { dst.range(row * p.dst_ld as usize, len) };
            for (d, s) in dst.iter_mut().zip(src) {
                *d += s;
            }
        });
    }
    fn stages(p: &AddParams, _: &Target) -> Vec<Stage> {
        vec![Stage::each(Self::NAME, p.rows as usize * p.c as usize)]
    }
}

/// Issues `dst += src` on `slot`.
pub(crate) fn add(builder: &mut Builder, origin: Origin, slot: SlotId, src: Tensor, dst: Tensor) {
    assert_eq!((src.batch, src.shape), (dst.batch, dst.shape), "sum of different shapes");
    let params =
        AddParams { rows: dst.rows() as i32, c: dst.shape.c as i32, dst_ld: dst.ld as i32, src_ld: src.ld as i32 };
    builder.launch::<Add>(origin, slot, params, &[dst.arg(), src.arg()]);
}
