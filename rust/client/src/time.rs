//! How long a call may take.

use std::time::{Duration, Instant};

/// A node answers anything but a request that waits for another program at once; after that long it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// So much more time the node has for its answer when that of the caller is over: as a rule to say just that.
const GRACE: Duration = Duration::from_secs(2);

/// A node may take that long to start.
const START: Duration = Duration::from_secs(30);

/// So much longer it may take than a caller waits that waits less long than that. A start counts for nothing in the time of
/// the caller.
const START_GRACE: Duration = Duration::from_secs(8);

/// Between two looks at what no descriptor tells of: whether a node that starts is ready, and whether one that is behind takes
/// more.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Wait a moment for what no descriptor tells of.
pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}

/// The time of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    begun: Instant,
    limit: Option<Duration>,
}

impl Time {
    /// It begins now; `limit`: seconds for what the node is asked for.
    pub(crate) fn new(limit: Option<f64>) -> Self {
        Time { begun: Instant::now(), limit: limit.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) }
    }

    /// When to give up.
    pub(crate) fn end(&self, welcomed: bool) -> Option<Instant> {
        let answer = self.limit.and_then(|limit| self.begun.checked_add(limit + GRACE));
        let hello = self.begun + PATIENCE;
        if welcomed { answer } else { Some(answer.map_or(hello, |answer| answer.min(hello))) }
    }

    /// Whether it is that time.
    pub(crate) fn is_over(&self, welcomed: bool) -> bool {
        self.end(welcomed).is_some_and(|end| end <= Instant::now())
    }

    /// When to give up on a node that starts since then.
    pub(crate) fn end_of_start(&self, since: Instant) -> Instant {
        since + self.limit.map_or(START, |limit| START.min(limit + START_GRACE))
    }

    /// A node was waited for since then, which counts for nothing.
    pub(crate) fn go_on_after(&mut self, since: Instant) {
        self.begun += since.elapsed();
    }

    /// Seconds that are left of what the caller gave.
    pub(crate) fn left(&self) -> f64 {
        self.limit.map_or(f64::INFINITY, |limit| limit.saturating_sub(self.begun.elapsed()).as_secs_f64())
    }
}
