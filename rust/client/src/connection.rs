//! One connection to the node. Used by one thread at a time.

use std::ffi::OsString;
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use ouroboros_shm::descriptors::above_standard;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, send, shutdown, socket_with,
};
use zeroize::Zeroize;

use crate::error::Error;
use crate::message::{Answer, MESSAGE_LENGTH, Request, decode_answer};
use crate::paths::user;

/// Messages may come in many pieces; so many are read at a time.
const READS_AT_ONCE: usize = 64;

/// Longer waits are made of several.
const LONGEST_POLL: Duration = Duration::from_secs(86_400);

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

/// Tells nodes apart. Not by the process alone, which can run several of them, nor by the socket, of which one can have two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub(crate) pid: i32,
    pub(crate) directory: PathBuf,
}

/// A connection that was made. It says hello by itself, and the answer to that comes before all others. Nothing here waits but
/// what says so.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    /// What the socket did not take yet.
    out: Vec<u8>,
    bytes: Vec<u8>,
    came: Vec<OwnedFd>,
    slot: Option<&'static AtomicI32>,
    /// The node has answered the hello, and lets this program in.
    pub(crate) welcomed: bool,
    pub(crate) node: Node,
    /// The runtime directory that the environment named.
    pub(crate) directory: Option<OsString>,
    /// Whose rights it has with the node, for good.
    pub(crate) user: u32,
}

impl Connection {
    /// `socket` does not block.
    pub(crate) fn new(socket: UnixStream, node: Node, hello: &Request<'_>) -> Self {
        let number = socket.as_raw_fd();
        let free = |slot: &&AtomicI32| slot.compare_exchange(-1, number, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Connection {
            slot: OPEN.iter().find(free),
            socket,
            out: hello.encode(),
            // So that an answer with a key in it is not moved.
            bytes: Vec::with_capacity(4096),
            came: Vec::new(),
            welcomed: false,
            node,
            directory: std::env::var_os("OUROBOROS_RUNTIME_DIR"),
            user: user(),
        }
    }

    /// Send, or keep for later what the socket does not take.
    pub(crate) fn send(&mut self, request: &Request<'_>) -> std::io::Result<()> {
        self.out.extend(request.encode());
        self.flush()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while !self.out.is_empty() {
            // A node that is gone is no reason to end the program by SIGPIPE.
            match send(&self.socket, &self.out, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    self.out.clear();
                    // A node that refuses the hello has said why, which is still to be read.
                    return if self.welcomed { Err(error.into()) } else { Ok(()) };
                }
            }
        }
        Ok(())
    }

    /// Whether the answer to the request is there.
    pub(crate) fn is_answered(&mut self) -> Result<bool, Error> {
        self.flush().map_err(|_| gone(self.welcomed, Errno::PIPE))?;
        // However fast it comes piece by piece, the caller has a clock to look at.
        for _ in 0..READS_AT_ONCE {
            if let Some(end) = self.message_end()? {
                if self.welcomed || !matches!(decode_answer(&self.bytes[4..end])?, Answer::Done(_)) {
                    return Ok(true);
                }
                // Descriptors belong to the answer behind it, which may have come along.
                self.welcomed = true;
                self.bytes.drain(..end);
                continue;
            }
            match self.read_more() {
                Ok(()) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(gone(self.welcomed, error)),
            }
        }
        Ok(false)
    }

    /// Take the answer that is there; `use_it` gets it, and the descriptors that came with it.
    pub(crate) fn take_answer<T>(&mut self, use_it: impl FnOnce(Answer<'_>, Vec<OwnedFd>) -> T) -> Result<T, Error> {
        let end = self.message_end()?.ok_or_else(|| gone(self.welcomed, Errno::AGAIN))?;
        let descriptors = std::mem::take(&mut self.came);
        let result = decode_answer(&self.bytes[4..end]).map(|answer| use_it(answer, descriptors));
        // There may have been a key in it.
        self.bytes[..end].zeroize();
        self.bytes.drain(..end);
        result
    }

    /// Wait until there is something to be done, or it is that time.
    pub(crate) fn wait(&self, end: Option<Instant>) {
        let what = if self.out.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let left = end.map(|end| end.saturating_duration_since(Instant::now()).min(LONGEST_POLL));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        // Whatever ends it, the next look tells.
        let _ = poll(&mut [PollFd::new(&self.socket, what)], left.as_ref());
    }

    /// Whether the node takes no more for now.
    pub(crate) fn is_behind(&self) -> bool {
        !self.out.is_empty()
    }

    /// Hang up, and wait until the node knows, for a moment at most: from then on it gives the request nothing, which would be
    /// lost.
    pub(crate) fn withdraw(mut self) {
        if shutdown(&self.socket, Shutdown::Write).is_err() {
            return;
        }
        self.out.clear();
        let end = Instant::now() + WITHDRAWAL;
        // To the end of the connection, as a rule.
        while Instant::now() < end {
            match self.read_more() {
                Ok(()) => self.came.clear(),
                Err(Errno::AGAIN) => self.wait(Some(end)),
                Err(_) => return,
            }
        }
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
                            // One that cannot be moved is missing, as others are for which there is no room.
                            self.came.extend(descriptors.flat_map(above_standard));
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

fn gone(welcomed: bool, error: Errno) -> Error {
    Error::Node(match error {
        Errno::CONNRESET | Errno::PIPE if welcomed => {
            "the node went away while it worked on the request; try again".into()
        }
        Errno::CONNRESET | Errno::PIPE => "the node does not let this program in: it hung up".into(),
        other => format!("the connection to the node failed: {other}"),
    })
}

/// A socket that is connected to the node and does not block; None when nobody listens, `AGAIN` when as many callers as the
/// node takes wait for it already.
pub(crate) fn connect_to(path: &Path) -> std::io::Result<Option<UnixStream>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = above_standard(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(socket.into())),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A sentence about a node that does not answer, and what to do. `pid`: its process, as far as it is known.
pub(crate) fn why_no_answer(directory: &Path, pid: Option<i32>) -> Error {
    let shown = directory.display();
    // Whoever holds the lock has written that there.
    let noted = || fs::read_to_string(directory.join("irmd.lock")).ok()?.trim().parse().ok();
    let Some(pid) = pid.or_else(noted) else {
        return Error::Node(format!(
            "the node in {shown} does not answer: it is stuck or overloaded; end it, and start it again"
        ));
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name of the program, which may have anything in it.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    Error::Node(if matches!(state, Some('T' | 't')) {
        format!("the node in {shown} does not answer: its process {pid} is stopped; have it go on (`kill -CONT {pid}`)")
    } else {
        format!(
            "the node in {shown} does not answer: its process {pid} is stuck or overloaded; end it (`kill -9 {pid}`), and \
             start it again"
        )
    })
}
