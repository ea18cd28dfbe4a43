//! Waking the sleepers of this process, for changes that it makes itself: the peer has the other end of the doorbell, so
//! nobody here can ring it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;

use super::lock;
use crate::descriptors::above_standard;

/// A descriptor that exists only while somebody sleeps.
#[derive(Debug, Default)]
pub(super) struct News(Mutex<Weak<OwnedFd>>);

impl News {
    /// The descriptor that the next `tell` makes readable. Subscribe before the last check of what `tell` announces. None when
    /// this process has no descriptor left: then the sleeper does without.
    pub(super) fn subscribe(&self) -> Option<Arc<OwnedFd>> {
        let mut latest = lock(&self.0);
        if let Some(news) = latest.upgrade() {
            return Some(news);
        }
        let news = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let news = Arc::new(above_standard(news).ok()?);
        *latest = Arc::downgrade(&news);
        Some(news)
    }

    /// Wake all subscribers.
    pub(super) fn tell(&self) {
        // The next subscriber gets a fresh one; this one stays readable until its last sleeper has let go of it.
        let latest = std::mem::take(&mut *lock(&self.0));
        if let Some(news) = latest.upgrade() {
            // It can be full at most, and is readable then.
            let _ = write(&news, &1u64.to_ne_bytes());
        }
    }
}
