//! The end of a program, whose threads may still be in calls of a flow, or come to them. There an error would do no good: a
//! thread that nobody waits for could only complain of it while the program goes down.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::bell::timespec;
use super::{ABANDONED, Endpoint, Wait};
use crate::layout::state;

/// A thread that rests without a descriptor checks this often whether it was called.
const LOOK: Duration = Duration::from_millis(100);

impl Endpoint {
    /// Release this side, as `close`, but let the threads of this process not know: to them it is a flow on which nothing
    /// happens any more. What was queued can be read, all else waits until the time is over or `close` is called. To the
    /// thread that called `note_exit` it is closed.
    pub fn abandon(&self) {
        self.leave(ABANDONED, state::CLOSED);
    }

    /// Whether `abandon` was called, and `close` was not.
    pub fn is_abandoned(&self) -> bool {
        self.life.load(Ordering::Relaxed) == ABANDONED
    }

    /// Wait for `close`.
    pub(super) fn rest(&self, deadline: Option<Instant>) -> Wait {
        while self.is_abandoned() {
            let news = self.news.subscribe();
            // Again, now that it would be told of.
            if !self.is_abandoned() {
                break;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Wait::TimedOut;
            }
            let polled = match &news {
                Some(news) => poll(&mut [PollFd::new(news, PollFlags::IN)], left.map(timespec).as_ref()),
                None => poll(&mut [], Some(&timespec(left.map_or(LOOK, |left| left.min(LOOK))))),
            };
            if polled == Err(Errno::INTR) {
                return Wait::Interrupted;
            }
        }
        Wait::Ready
    }
}
