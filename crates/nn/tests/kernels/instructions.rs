use crate::emulated;
use alexnode_cuda::emulated::{Asynchronous, Options, Order};
use alexnode_nn::testing::instructions::check_instructions;

#[test]
fn instructions_of_tensor_cores() {
    for order in [Order::Forward, Order::Reverse, Order::Random(3)] {
        for asynchronous in [Asynchronous::Late, Asynchronous::Eager] {
            let options = Options { order, asynchronous, ..Options::default() };
            if let Some(mut backend) = emulated(options) {
                check_instructions(&mut backend);
            }
        }
    }
}
