//! One connection to the node. Used by one thread at a time.

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, recvmsg, send, shutdown};
use zeroize::Zeroize;

use crate::error::Error;
use crate::message::{Answer, MESSAGE_LENGTH, Request, decode_answer};

/// A node answers anything but a waiting request at once; after that long it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// That long an interrupted call waits until the node has noticed.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// Descriptors of connections of this process, for the child of a fork. More than fit are not noted: each is one call that
/// waits.
static OPEN: [AtomicI32; 1024] = [const { AtomicI32::new(-1) }; 1024];

/// The descriptors of the connections that are open, and forget them. For the child of a fork, which has to close them: a
/// copy that stays open would hide the parent's hanging up.
pub fn take_open() -> impl Iterator<Item = RawFd> {
    OPEN.iter().map(|slot| slot.swap(-1, Ordering::Relaxed)).filter(|descriptor| *descriptor >= 0)
}

/// Tells nodes apart. Not by the process alone, which can run several of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub(crate) pid: i32,
    pub(crate) path: PathBuf,
}

/// A connection that was made; `Client` says hello.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    bytes: Vec<u8>,
    came: Vec<OwnedFd>,
    slot: Option<&'static AtomicI32>,
    pub(crate) node: Node,
    /// The runtime directory that the environment named.
    pub(crate) directory: Option<OsString>,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream, node: Node) -> Self {
        let number = socket.as_raw_fd();
        let free = |slot: &&AtomicI32| slot.compare_exchange(-1, number, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Connection {
            slot: OPEN.iter().find(free),
            socket,
            // So that an answer with a key in it is not moved.
            bytes: Vec::with_capacity(4096),
            came: Vec::new(),
            node,
            directory: std::env::var_os("OUROBOROS_RUNTIME_DIR"),
        }
    }

    pub(crate) fn send(&mut self, request: &Request<'_>) -> std::io::Result<()> {
        let message = request.encode();
        let mut rest = &*message;
        while !rest.is_empty() {
            // A node that is gone is no reason to end the program by SIGPIPE.
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Wait for the answer; `use_it` gets it, and the descriptors that came with it. `patient`: for a request that waits.
    pub(crate) fn receive<T>(
        &mut self,
        patient: bool,
        use_it: impl FnOnce(Answer<'_>, Vec<OwnedFd>) -> T,
    ) -> Result<T, Error> {
        self.limit(if patient { None } else { Some(PATIENCE) });
        loop {
            if let Some(end) = self.message_end()? {
                let descriptors = std::mem::take(&mut self.came);
                let result = decode_answer(&self.bytes[4..end]).map(|answer| use_it(answer, descriptors));
                // There may have been a key in it.
                self.bytes[..end].zeroize();
                self.bytes.drain(..end);
                return result;
            }
            self.read_more().map_err(gone)?;
        }
    }

    /// Hang up, and wait until the node knows: from then on it gives the request nothing, which would be lost.
    pub(crate) fn withdraw(mut self) {
        if shutdown(&self.socket, Shutdown::Write).is_err() {
            return;
        }
        self.limit(Some(WITHDRAWAL));
        // To the end of the connection, as a rule.
        while self.read_more().is_ok() {
            self.came.clear();
        }
    }

    fn limit(&self, time: Option<Duration>) {
        // It fails for a limit of zero only.
        let _ = self.socket.set_read_timeout(time);
    }

    /// Where the message at the front ends, when it is whole.
    fn message_end(&self) -> Result<Option<usize>, Error> {
        let Some(prefix) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MESSAGE_LENGTH {
            return Err(Error::Protocol(format!("the node announces an answer of {length} bytes")));
        }
        Ok((self.bytes.len() >= 4 + length).then_some(4 + length))
    }

    fn read_more(&mut self) -> Result<(), Errno> {
        let mut chunk = [0; 16384];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let length = loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut chunk)];
            match recvmsg(&self.socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
                Ok(message) => {
                    for part in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                            self.came.extend(descriptors);
                        }
                    }
                    break message.bytes;
                }
            }
        };
        if length == 0 {
            return Err(Errno::CONNRESET);
        }
        self.bytes.extend_from_slice(&chunk[..length]);
        chunk[..length].zeroize();
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.store(-1, Ordering::Relaxed);
        }
    }
}

fn gone(error: Errno) -> Error {
    Error::Node(match error {
        Errno::AGAIN => "the node does not answer: it is stuck or overloaded".into(),
        Errno::CONNRESET | Errno::PIPE => "the node went away while it worked on the request; try again".into(),
        other => format!("the connection to the node failed: {other}"),
    })
}
