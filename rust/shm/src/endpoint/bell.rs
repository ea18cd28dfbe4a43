//! Our end of the doorbell of a flow.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::ring::Bell;

/// Our end of the socket pair.
#[derive(Debug)]
pub(super) struct BellSocket {
    pub(super) socket: OwnedFd,
    pub(super) hung_up: AtomicBool,
}

impl BellSocket {
    pub(super) fn ring(&self) {
        // A full socket is readable, which is all we want; a broken one means the peer is gone.
        match send(&self.socket, b"!", SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(_) => self.hung_up.store(true, Ordering::Relaxed),
        }
    }

    /// Wait until it is rung, hangs up, or there are `news`. False: the deadline passed.
    pub(super) fn poll(&self, news: Option<&OwnedFd>, deadline: Option<Instant>) -> Result<bool, Errno> {
        // A socket that the peer shut down halfway is always readable: it counts as hung up as well.
        let bell = PollFd::new(&self.socket, PollFlags::IN | PollFlags::RDHUP);
        let mut fds = [bell, PollFd::new(news.unwrap_or(&self.socket), PollFlags::IN)];
        let watched = if news.is_some() { 2 } else { 1 };
        let left = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        let count = poll(&mut fds[..watched], left.as_ref())?;
        if fds[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR) {
            self.hung_up.store(true, Ordering::Relaxed);
        }
        Ok(count > 0)
    }

    /// Ask the system whether the peer has hung up.
    pub(super) fn check_peer(&self) {
        // Notes a hang-up; all else is of no interest here.
        let _ = self.poll(None, Some(Instant::now()));
    }

    /// How many bytes came; an end of file, which comes at once and for ever, is noted.
    fn receive(&self, bytes: &mut [u8], flags: RecvFlags) -> usize {
        match recv(&self.socket, bytes, flags | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {
                self.hung_up.store(true, Ordering::Relaxed);
                0
            }
            Ok((_, length)) => length,
            Err(_) => 0,
        }
    }
}

impl Bell for BellSocket {
    fn drain(&self, count: usize) -> usize {
        let mut bytes = [0u8; 16];
        let limit = count.min(bytes.len());
        self.receive(&mut bytes[..limit], RecvFlags::empty())
    }

    fn has_token(&self) -> bool {
        self.receive(&mut [0u8; 1], RecvFlags::PEEK) > 0
    }
}

pub(super) fn timespec(duration: Duration) -> Timespec {
    // Both parts fit: the longest wait is bounded by Instant arithmetic, far below 2^63 s.
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
