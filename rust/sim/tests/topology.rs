//! Hostile bytes for layers of any shape, a fixed number of them.

use proptest::prelude::*;

#[path = "common/topology.rs"]
#[allow(clippy::indexing_slicing)]
mod topology;

proptest! {
    #[test]
    fn no_input_breaks_a_layer_of_any_shape(input in prop::collection::vec(any::<u8>(), 1..1500)) {
        topology::run(&input);
    }
}
