//! The connections of a process to its node.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::net::sockopt::socket_peercred;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::de::DeserializeOwned;

use crate::c::is_privileged;
use crate::connection::{Connection, Node, connect_to, why_no_answer};
use crate::embedded::{gone_already, is_starting, start_node, why_not_ready};
use crate::error::Error;
use crate::message::{Answer, Granted, Request, decode_value};
use crate::paths::{check_socket, is_trusted, owner_socket_path, runtime_dir, socket_path, user};
use crate::time::{PAUSE, Time, pause};
use crate::{instance, program};

/// The connections that are kept for the next calls, and what this process calls itself.
#[derive(Debug)]
pub struct Client {
    idle: Mutex<Vec<Connection>>,
    /// What is still to be told to a node that could not be told at once: a flow and its side.
    owed: Mutex<VecDeque<(Node, u64, u64)>>,
    program: String,
    instance: u64,
}

/// A flow that the node gave out.
#[derive(Debug)]
pub struct Grant {
    /// What the node says about it.
    pub granted: Granted,
    /// Its memory.
    pub memory: OwnedFd,
    /// The doorbell socket of this end.
    pub bell: OwnedFd,
    /// The node that gave it out.
    pub node: Arc<Node>,
}

/// A request for a flow that is under way. Dropping it hangs up, which cancels the request.
#[derive(Debug)]
pub struct Pending {
    connection: Connection,
    time: Time,
}

impl Pending {
    /// Readable when there is news.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// When to look in any case.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let end = self.time.end(self.connection.welcomed);
        // No descriptor tells that it takes more.
        if self.connection.is_behind() { Some(end.map_or_else(soon, |end| end.min(soon()))) } else { end }
    }

    /// Whether the answer is there. Fails when it does not come in time.
    pub fn is_answered(&mut self) -> Result<bool, Error> {
        if self.connection.is_answered()? {
            return Ok(true);
        }
        if self.time.is_over(self.connection.welcomed) {
            return Err(why_no_answer(&runtime_dir(), Some(self.connection.node.pid)));
        }
        Ok(false)
    }

    /// Give up: from now on the node gives nothing to this request.
    pub fn withdraw(self) {
        self.connection.withdraw();
    }
}

impl Default for Client {
    fn default() -> Self {
        Client::new()
    }
}

impl Client {
    /// No connection yet: the first request makes one.
    #[must_use]
    pub fn new() -> Self {
        Client {
            idle: Mutex::default(),
            owed: Mutex::default(),
            program: program::program_name(),
            instance: instance(),
        }
    }

    /// Send a request and return the value of its answer. A node is started when there is none.
    pub fn request<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, Error> {
        let mut pending = self.begin(request)?;
        while !pending.is_answered()? {
            pending.connection.wait(pending.deadline());
        }
        let mut connection = pending.connection;
        let answer = connection.take_answer(|answer, _| match answer {
            Answer::Done(packed) => decode_value(packed),
            Answer::Failed(kind, text) => Err(Error::Refused { kind, text }),
            Answer::Granted(_) => Err(Error::Protocol("the node gave a flow that nobody asked for".into())),
        })?;
        self.keep(connection);
        answer
    }

    /// Send a request that is answered by a flow; the node is started when there is none.
    pub fn begin(&self, request: &Request<'_>) -> Result<Pending, Error> {
        let mut time = Time::new(request.limit());
        let connection = self.send(request, &mut time)?;
        Ok(Pending { connection, time })
    }

    /// Take the flow of a request that is answered.
    pub fn finish(&self, pending: Pending) -> Result<Grant, Error> {
        let mut connection = pending.connection;
        let answer = connection.take_answer(|answer, descriptors| match answer {
            Answer::Granted(granted) => Ok((granted, descriptors)),
            Answer::Failed(kind, text) => Err(Error::Refused { kind, text }),
            Answer::Done(_) => Err(Error::Protocol("the node answered a request for a flow without one".into())),
        })?;
        let node = Arc::new(connection.node.clone());
        // Kept, not closed: a connection that hangs up right after a flow gives it back.
        self.keep(connection);
        let (granted, descriptors) = answer?;
        let Ok([memory, bell]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            self.release(granted.flow_id, granted.side, &node);
            return Err(Error::Limit("this program has no descriptors left for the flow: raise `ulimit -n`".into()));
        };
        make_room_for_descriptors(&[&memory, &bell]);
        Ok(Grant { granted, memory, bell, node })
    }

    /// Tell the node that gave out an end of a flow that it is not used any more. Never waits: what a node does not take now it
    /// is told with one of the next calls, and it learns all at the end of this process. One that is gone needs no telling, and
    /// its successor may use the same numbers for another flow.
    pub fn release(&self, flow_id: u64, side: u64, node: &Node) {
        self.owed().push_back((node.clone(), flow_id, side));
        self.pay();
    }

    /// Tell nodes what they are owed, as far as they take it.
    fn pay(&self) {
        loop {
            let Some((node, flow_id, side)) = self.owed().pop_front() else { return };
            let found = match self.take_idle(|each| each.node == node) {
                None => self.connect(),
                found => Ok(found),
            };
            match found {
                Ok(Some(mut connection)) => {
                    if connection.node != node || connection.send(&Request::Dealloc { flow_id, side }).is_ok() {
                        self.idle().push(connection);
                    }
                }
                Err(Refusal::Full) => {
                    self.owed().push_front((node, flow_id, side));
                    return;
                }
                Ok(None) | Err(Refusal::For(_)) => {}
            }
        }
    }

    fn owed(&self) -> MutexGuard<'_, VecDeque<(Node, u64, u64)>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request on that connection is answered: keep it for the next one.
    fn keep(&self, connection: Connection) {
        if connection.welcomed {
            self.idle().push(connection);
        }
    }

    fn take_idle(&self, fits: impl Fn(&Connection) -> bool) -> Option<Connection> {
        let mut idle = self.idle();
        let index = idle.iter().rposition(fits)?;
        Some(idle.swap_remove(index))
    }

    /// Send the request over a connection of its own.
    fn send(&self, request: &Request<'_>, time: &mut Time) -> Result<Connection, Error> {
        self.pay();
        // The environment may name another directory than it did. A program that gave up rights must not use those that a
        // connection still has, but to let go of what it holds.
        let directory = std::env::var_os("OUROBOROS_RUNTIME_DIR");
        let user = user();
        while let Some(mut connection) = self.take_idle(|each| each.directory == directory && each.user == user) {
            // Else the node that it led to is gone.
            if connection.send(request).is_ok() {
                return Ok(connection);
            }
        }
        let mut connection = self.reach(time)?;
        connection
            .send(&request.within(time.left()))
            .map_err(|error| Error::Node(format!("the node does not take the request: {error}")))?;
        Ok(connection)
    }

    /// A connection to the node, which is started if need be.
    fn reach(&self, time: &mut Time) -> Result<Connection, Error> {
        let (mut absent, mut started) = (None, false);
        loop {
            match self.connect() {
                Ok(Some(connection)) => {
                    if let Some(since) = absent {
                        time.go_on_after(since);
                    }
                    return Ok(connection);
                }
                Err(Refusal::For(error)) => return Err(error),
                Err(Refusal::Full) if time.is_over(false) => return Err(why_no_answer(&runtime_dir(), None)),
                Err(Refusal::Full) => pause(),
                Ok(None) => {
                    let directory = runtime_dir();
                    let since = *absent.get_or_insert_with(Instant::now);
                    let end = time.end_of_start(since);
                    let may_start = may_start();
                    if !is_starting(&directory, may_start.is_ok()) {
                        may_start
                            .map_err(|why| Error::Node(format!("no node runs in {}{why}", directory.display())))?;
                        if std::mem::replace(&mut started, true) {
                            return Err(gone_already(&directory));
                        }
                        start_node(&directory, end, || !matches!(self.connect(), Ok(None)))?;
                    } else if Instant::now() >= end {
                        return Err(why_not_ready(&directory));
                    } else {
                        pause();
                    }
                }
            }
        }
    }

    /// A new connection, None when nobody listens.
    fn connect(&self) -> Result<Option<Connection>, Refusal> {
        let directory = runtime_dir();
        let path = socket_path(&directory)?;
        // A node that serves all users has one for root.
        let found = if user() == 0 { try_connect(&owner_socket_path(&directory))? } else { None };
        let Some((socket, node)) = found.map_or_else(|| try_connect(&path), |found| Ok(Some(found)))? else {
            return Ok(None);
        };
        let hello = Request::Hello { program: &self.program, instance: self.instance };
        Ok(Some(Connection::new(socket, node, &hello)))
    }
}

/// Why there is no connection to a node that is there.
enum Refusal {
    /// As many callers as it takes wait for it already.
    Full,
    For(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::For(error)
    }
}

fn soon() -> Instant {
    Instant::now() + PAUSE
}

/// Whether this program may start a node; if not, what to do.
fn may_start() -> Result<(), &'static str> {
    if std::env::var_os("OUROBOROS_AUTOSTART").is_some_and(|value| value == "0") {
        return Err(": start one with `irmd`");
    }
    // It would run whatever the environment says, with the rights of this program.
    if is_privileged() {
        Err(", and a program with the rights of somebody else starts none: run `irmd`")
    } else {
        Ok(())
    }
}

fn try_connect(path: &Path) -> Result<Option<(UnixStream, Node)>, Refusal> {
    let shown = path.display();
    let socket = match connect_to(path) {
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(Refusal::Full),
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
            return Err(Error::Limit(error.to_string()).into());
        }
        Err(error) => return Err(Error::Node(format!("cannot reach the node at {shown}: {error}")).into()),
        Ok(Some(socket)) => socket,
    };
    let peer =
        socket_peercred(&socket).map_err(|error| Error::Node(format!("cannot tell who is at {shown}: {error}")))?;
    let owner = peer.uid.as_raw();
    if !is_trusted(owner) {
        // Whoever gets to a name in /tmp first must not become the node of everybody.
        return Err(Error::Node(format!(
            "the node at {shown} belongs to user {owner}: set OUROBOROS_RUNTIME_DIR to a directory of yours"
        ))
        .into());
    }
    // Nor choose which of those that we trust it is.
    check_socket(path)?;
    let directory = path.parent().unwrap_or(path).to_owned();
    Ok(Some((socket, Node { pid: peer.pid.as_raw_nonzero().get(), directory })))
}

/// Raise the soft limit of descriptors to the hard one before it is reached: each flow takes one.
fn make_room_for_descriptors(newest: &[&OwnedFd]) {
    use std::os::fd::AsRawFd;

    let highest = newest.iter().map(|descriptor| descriptor.as_raw_fd()).max().unwrap_or_default() as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|soft| soft.saturating_sub(highest) < 64) && limit.current != limit.maximum {
        // Without more, the next flow says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}
