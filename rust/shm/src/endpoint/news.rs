//! Waking the sleepers of this process, for changes that it makes itself: the peer has the other end of the doorbell, so
//! nobody here can ring it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;

use super::lock;

/// A descriptor that exists only while somebody sleeps.
#[derive(Debug, Default)]
pub(super) struct News(Mutex<Weak<OwnedFd>>);

impl News {
    /// What becomes readable with the next `tell`; to be had before the last look at what that tells of. None when this
    /// process has no descriptor left: then the sleeper does without.
    pub(super) fn subscribe(&self) -> Option<Arc<OwnedFd>> {
        let mut latest = lock(&self.0);
        if let Some(news) = latest.upgrade() {
            return Some(news);
        }
        let news = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?);
        *latest = Arc::downgrade(&news);
        Some(news)
    }

    /// Wake all who subscribed until now.
    pub(super) fn tell(&self) {
        // Whoever subscribes next gets a fresh one; this one stays readable until its last sleeper has let go of it.
        let latest = std::mem::take(&mut *lock(&self.0));
        if let Some(news) = latest.upgrade() {
            // It can be full at most, and is readable then.
            let _ = write(&news, &1u64.to_ne_bytes());
        }
    }
}
