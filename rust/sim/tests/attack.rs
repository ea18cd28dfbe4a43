//! Hostile bytes for a node with layers over layers, a fixed number of them.

use proptest::prelude::*;

#[path = "common/attack.rs"]
#[allow(clippy::unwrap_used)]
mod attack;

proptest! {
    #[test]
    fn no_input_breaks_a_node_with_layers_over_layers(input in prop::collection::vec(any::<u8>(), 1..3000)) {
        attack::run(&input);
    }
}
