use crate::{emulated_in, machines::with_tensor_cores};
use alexnode_core::{Backend, Precision};
use alexnode_cuda::emulated::{Asynchronous, Options, Order};
use alexnode_nn::testing::{instructions::check_instructions, product::check_products};

/// Emulated GPUs in `precision` that differ in the order of threads and in when asynchronous copies happen; or what the environment names, as often.
pub fn machines(precision: Precision) -> Vec<(String, Box<dyn Backend>)> {
    if let Some(named) = with_tensor_cores(precision) {
        return named;
    }
    let kinds = [
        (Order::Forward, Asynchronous::Late),
        (Order::Reverse, Asynchronous::Eager),
        (Order::Random(1), Asynchronous::Late),
        (Order::Forward, Asynchronous::Eager),
    ];
    let machine = |(order, asynchronous)| {
        let options = Options { order, asynchronous, ..Options::default() };
        let backend = Box::new(emulated_in(precision, options)?) as Box<dyn Backend>;
        Some((format!("{precision}, {order:?} order, {asynchronous:?} copies"), backend))
    };
    kinds.into_iter().filter_map(machine).collect()
}

#[test]
fn instructions_of_tensor_cores() {
    for (_, mut backend) in machines(Precision::Fp32) {
        check_instructions(&mut *backend);
    }
}

#[test]
fn products_in_every_tile() {
    for precision in [Precision::Fp32, Precision::Tf32, Precision::Bf16] {
        let mut first = None;
        for (machine, mut backend) in machines(precision) {
            let bits = check_products(&mut *backend);
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "other bits with {machine}");
        }
    }
}
