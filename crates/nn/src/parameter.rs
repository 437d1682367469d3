//! Parameter tensors outside of any slot: initial values, the share of a tower, the order of axes in files.

use crate::{layers::ParameterInit, network::Parameter};
use alexnode_core::rng::{Purpose, Stream};

/// The initial value of parameter tensor `index`, drawn on the host: the same for every placement.
pub fn initial(parameter: &Parameter, index: usize, seed: u64) -> Vec<f32> {
    match parameter.spec.init {
        ParameterInit::Constant(value) => vec![value; parameter.len()],
        ParameterInit::Normal(std) => {
            let stream = Stream::new(seed, Purpose::Init, 0);
            let mut values = Vec::with_capacity(parameter.len().next_multiple_of(4));
            for quad in 0..parameter.len().div_ceil(4) {
                values.extend(stream.normals(quad as u32, index as u32, 0).map(|z| std * z));
            }
            values.truncate(parameter.len());
            values
        }
    }
}

/// The runs of elements that a tower holds of a tensor whose axis `axis` is shared out: (first element, length), in order.
fn runs(dims: &[usize], axis: usize, start: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let extent = dims[axis];
    (0..outer).map(move |o| ((o * extent + start) * inner, count * inner))
}

/// The share `start..start + count` of axis `axis`.
pub fn take(values: &[f32], dims: &[usize], axis: usize, start: usize, count: usize) -> Vec<f32> {
    runs(dims, axis, start, count).flat_map(|(first, len)| values[first..first + len].iter().copied()).collect()
}

/// Writes a share back to where [`take`] found it.
pub fn put(values: &mut [f32], dims: &[usize], axis: usize, start: usize, count: usize, share: &[f32]) {
    let mut rest = share;
    for (first, len) in runs(dims, axis, start, count) {
        let (head, tail) = rest.split_at(len);
        values[first..first + len].copy_from_slice(head);
        rest = tail;
    }
}

/// Reorders `values` with extents `dims` so that axis `i` of the result is axis `order[i]` of the input.
pub fn permute(values: &[f32], dims: &[usize], order: &[usize]) -> Vec<f32> {
    let mut strides = vec![1; dims.len()];
    for axis in (0..dims.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * dims[axis + 1];
    }
    let extents: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
    let steps: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
    let mut out = Vec::with_capacity(values.len());
    let mut position = vec![0; dims.len()];
    let mut source = 0;
    for _ in 0..values.len() {
        out.push(values[source]);
        for axis in (0..extents.len()).rev() {
            position[axis] += 1;
            source += steps[axis];
            if position[axis] < extents[axis] {
                break;
            }
            source -= steps[axis] * extents[axis];
            position[axis] = 0;
        }
    }
    out
}

/// [`permute`], in place: what is permuted at a time lies behind the leading axes that stay where they are.
fn permute_in_place(values: &mut [f32], dims: &[usize], order: &[usize]) {
    let stay = order.iter().enumerate().take_while(|(i, axis)| i == *axis).count();
    let piece: usize = dims[stay..].iter().product();
    if stay == dims.len() || piece == 0 {
        return;
    }
    let order: Vec<usize> = order[stay..].iter().map(|axis| axis - stay).collect();
    for values in values.chunks_mut(piece) {
        values.copy_from_slice(&permute(values, &dims[stay..], &order));
    }
}

/// From the order of the kernels to that of files.
pub fn to_border(mut values: Vec<f32>, parameter: &Parameter) -> Vec<f32> {
    permute_in_place(&mut values, &parameter.spec.dims, &parameter.spec.border_order);
    values
}

/// From the order of files to that of the kernels.
pub fn from_border(mut values: Vec<f32>, parameter: &Parameter) -> Vec<f32> {
    let order = &parameter.spec.border_order;
    let dims: Vec<usize> = order.iter().map(|&axis| parameter.spec.dims[axis]).collect();
    let mut inverse = vec![0; order.len()];
    for (to, &from) in order.iter().enumerate() {
        inverse[from] = to;
    }
    permute_in_place(&mut values, &dims, &inverse);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::ParameterSpec;

    fn conv(o: usize, r: usize, s: usize, i: usize) -> Parameter {
        Parameter {
            name: "conv.weight".into(),
            layer: 0,
            spec: ParameterSpec {
                name: "weight",
                dims: vec![o, r, s, i],
                output_axis: 0,
                border_order: vec![0, 3, 1, 2],
                border_shape: vec![o, i, r, s],
                init: ParameterInit::Normal(0.01),
                decay: 0.0,
                frozen: false,
            },
        }
    }

    #[test]
    fn the_border_order_is_oihw_and_comes_back() {
        let p = conv(2, 3, 4, 5);
        let inside: Vec<f32> = (0..p.len()).map(|v| v as f32).collect();
        let outside = to_border(inside.clone(), &p);
        let (o, r, s, i) = (1, 2, 3, 4);
        assert_eq!(outside[((o * 5 + i) * 3 + r) * 4 + s], inside[((o * 3 + r) * 4 + s) * 5 + i]);
        assert_eq!(from_border(outside, &p), inside);
    }

    #[test]
    fn two_shares_make_the_whole() {
        for axis in 0..3 {
            let dims = [4, 6, 2];
            let whole: Vec<f32> = (0..48).map(|v| v as f32).collect();
            let half = dims[axis] / 2;
            let mut back = vec![f32::NAN; 48];
            for start in [0, half] {
                let share = take(&whole, &dims, axis, start, half);
                assert_eq!(share.len(), 24);
                put(&mut back, &dims, axis, start, half, &share);
            }
            assert_eq!(back, whole);
        }
    }

    #[test]
    fn initial_weights_have_the_deviation_asked_for() {
        let p = conv(96, 11, 11, 3);
        let w = initial(&p, 0, 42);
        let mean_abs = w.iter().map(|v| f64::from(v.abs())).sum::<f64>() / w.len() as f64;
        assert!((mean_abs / 0.01 - 0.798).abs() < 0.01, "{mean_abs}"); // E|N(0, s)| = 0.798 s
        assert_ne!(w, initial(&p, 1, 42));
        assert_eq!(w, initial(&p, 0, 42));
    }
}
