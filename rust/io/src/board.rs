//! The board of a node: a file in which its counters are, for whoever looks.

use std::io;
use std::os::fd::OwnedFd;

use ouroboros_shm::board;
use ouroboros_stack::{Source, names};

/// See the module.
#[derive(Debug)]
pub struct Board(board::Board);

impl Board {
    /// Begin an empty file. `instance`: a number that tells its engine from those before it.
    pub fn new(file: OwnedFd, instance: u64) -> io::Result<Self> {
        Ok(Board(board::Board::new(file, instance, &names())?))
    }

    /// All that was published is of now.
    pub(crate) fn note_time(&mut self) {
        self.0.note_time();
    }
}

impl ouroboros_stack::Board for Board {
    fn publish(&mut self, source: Source, over: bool, values: &[u64]) {
        // In the order of `names`.
        let (kind, id) = match source {
            Source::Member(member) => (0, member.into()),
            Source::Flow(flow) => (1, flow.into()),
        };
        self.0.publish(kind, id, over, values);
    }
}
