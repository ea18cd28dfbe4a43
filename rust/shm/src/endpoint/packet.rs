//! Waiting for a packet: by spinning, in the doorbell, or by other means.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::guard::Guarded;
use super::{Endpoint, Error, Receiver, Sleep, Wait, lock};
use crate::ring::{Arm, Consumer, Corrupt};
use crate::spin::Pauses;

/// After this many reads in a row the flow counts as a stream: the reader is not waiting for an answer.
const STREAM: u32 = 16;

impl Endpoint {
    /// The descriptor that is readable when there may be something to read. From now on it is unreadable when not.
    pub fn pollable(&self) -> Result<BorrowedFd<'_>, Error> {
        self.usable()?;
        self.polled.store(true, Ordering::Relaxed);
        // Dropping a reader settles the doorbell of a polled flow.
        drop(self.reader()?);
        Ok(self.bell.socket.as_fd())
    }

    /// Make `pollable` readable only for packets, or when `ended` differs from `seen`.
    pub fn watch(&self, seen: u32) -> Result<(), Error> {
        let mut reader = self.reader()?;
        if reader.receiver.held.is_empty() && reader.next()?.is_none() {
            // A peer that was killed is noticed here, or its reader would be woken again and again by nothing to read.
            let armed = reader.receiver.consumer.arm(&self.bell, || self.ended() != Ok(seen));
            self.note_corrupt(armed)?;
        }
        Ok(())
    }

    /// Whether there is a packet, or an end, that the next reader finds. For a poller that is told of changes only: the
    /// doorbell does not change for a packet that came while the last reader was dropped.
    pub fn has_news(&self) -> bool {
        self.packet_near()
    }

    /// The part of `wait` for a packet that comes before the sleep, for a thread that sleeps by other means: until one of
    /// the descriptors is readable, or the bell hangs up, which `note_hang_up` has to be told. None: try again now.
    pub fn before_sleep(&self) -> Option<Sleep<'_>> {
        if self.spin_read.spin(self.pauses(), || self.packet_near()) {
            return None;
        }
        let news = self.news.subscribe();
        match self.arm(&mut lock(&self.receiver)) {
            Ok(Arm::Armed) if !self.read_ended() => Some(Sleep { bell: self.bell.socket.as_fd(), news }),
            _ => None,
        }
    }

    /// The descriptor hung up, or reported an error.
    pub fn note_hang_up(&self) {
        self.bell.hung_up.store(true, Ordering::Relaxed);
    }

    /// Whether a try would not just find an empty ring again.
    pub(super) fn packet_near(&self) -> bool {
        Consumer::peek(&self.incoming, self.head.load(Ordering::Relaxed)) || self.read_ended()
    }

    pub(super) fn read_ended(&self) -> bool {
        self.usable().is_err() || self.peer_error().is_err()
    }

    pub(super) fn is_swamped(&self) -> bool {
        self.guarded.as_ref().is_some_and(Guarded::is_swamped)
    }

    pub(super) fn pauses(&self) -> Pauses {
        if self.reads_in_a_row.load(Ordering::Relaxed) < STREAM { Pauses::ANSWER } else { Pauses::STREAM }
    }

    pub(super) fn wait_packet(&self, deadline: Option<Instant>) -> Wait {
        // A peer that writes packets faster than they are rejected must not keep the reader beyond its time.
        if self.is_swamped() && deadline.is_some_and(|end| end <= Instant::now()) {
            return Wait::TimedOut;
        }
        let Some(sleep) = self.before_sleep() else { return Wait::Ready };
        match self.bell.poll(sleep.news.as_deref(), deadline) {
            Ok(false) => Wait::TimedOut,
            // A false alarm is settled at the next arming; no number of them may outlast the deadline.
            Ok(_) if !self.packet_near() && deadline.is_some_and(|end| end <= Instant::now()) => Wait::TimedOut,
            Ok(_) => Wait::Ready,
            Err(_) => Wait::Interrupted,
        }
    }

    pub(super) fn arm(&self, receiver: &mut Receiver) -> Result<Arm, Corrupt> {
        if !receiver.held.is_empty() {
            return Ok(Arm::Ready);
        }
        let armed = receiver.consumer.arm(&self.bell, || self.read_ended());
        self.note_corrupt(armed)
    }
}
