//! Waiting for room: in a futex, or for the descriptor.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex;

use super::bell::timespec;
use super::guard::Guarded;
use super::{Endpoint, Error, Wait, lock};
use crate::spin::Pauses;

/// A writer that waits for space checks this often for its peer, in case the node that would tell it is gone.
const LOOK_FOR_PEER: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Ring the descriptor when a packet of `length` can be written, or the flow ends. True: try again now. `forget_room`
    /// has to follow, when it was rung or nobody waits any more.
    ///
    /// The descriptor is readable anyway when packets wait to be read: a writer waits for the ring itself, that is for an
    /// edge (`EPOLLET`), beginning before this call.
    pub fn want_room(&self, length: usize) -> Result<bool, Error> {
        self.usable()?;
        lock(&self.receiver).consumer.expect_room_token();
        {
            let producer = lock(&self.producer);
            producer.arm();
            producer.request_wake(self.in_ring(length));
        }
        // A poller that waits for changes is told of a hang-up once, and may have been: then it has to be seen here.
        self.bell.check_peer();
        Ok(self.room_or_end(length))
    }

    /// Undo `want_room`.
    pub fn forget_room(&self) -> Result<(), Error> {
        self.usable()?;
        let mut receiver = lock(&self.receiver);
        let rung = lock(&self.producer).unarm();
        receiver.consumer.settle_room_token(rung, &self.bell);
        Ok(())
    }

    pub(super) fn wait_room(&self, length: usize, deadline: Option<Instant>) -> Wait {
        let space = &self.mapping.control().rings[self.side].wait.space;
        let seen = space.load(Ordering::Acquire);
        if self.spin_write.spin(Pauses::STREAM, || self.room_or_end(length)) {
            return Wait::Ready;
        }
        lock(&self.producer).request_wake(self.in_ring(length));
        if self.room_or_end(length) {
            return Wait::Ready;
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Wait::TimedOut;
        }
        let patience = timespec(left.map_or(LOOK_FOR_PEER, |left| left.min(LOOK_FOR_PEER)));
        match futex::wait(space, futex::Flags::empty(), seen, Some(&patience)) {
            Err(Errno::INTR) => return Wait::Interrupted,
            Err(Errno::TIMEDOUT) => self.bell.check_peer(),
            _ => {}
        }
        Wait::Ready
    }

    pub(super) fn room_or_end(&self, length: usize) -> bool {
        if self.writable().is_err() {
            return true;
        }
        let room = lock(&self.producer).has_room(self.in_ring(length));
        self.note_corrupt(room) != Ok(false)
    }

    /// The length that a packet has when it is in the ring.
    fn in_ring(&self, length: usize) -> usize {
        length + self.guarded.as_ref().map_or(0, Guarded::overhead)
    }
}
