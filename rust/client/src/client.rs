//! The connections of a process to its node.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt::socket_peercred;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::de::DeserializeOwned;

use crate::c::is_privileged;
use crate::connection::{Connection, Node};
use crate::embedded::start_node;
use crate::error::Error;
use crate::message::{Answer, Granted, Request, decode_value};
use crate::paths::{runtime_dir, socket_path, user};
use crate::{instance, program};

/// The connections that are kept for the next calls, and what this process calls itself.
#[derive(Debug)]
pub struct Client {
    idle: Mutex<Vec<Connection>>,
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
}

impl Pending {
    /// Readable when the answer is there.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
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
        Client { idle: Mutex::default(), program: program::program_name(), instance: instance() }
    }

    /// Send a request and return the value of its answer. A node is started when there is none.
    pub fn request<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, Error> {
        let mut connection = self.send(request)?;
        let answer = connection.receive(false, |answer, _| match answer {
            Answer::Done(packed) => decode_value(packed),
            Answer::Failed(kind, text) => Err(Error::Refused { kind, text }),
            Answer::Granted(_) => Err(Error::Protocol("the node gave a flow that nobody asked for".into())),
        })?;
        self.keep(connection);
        answer
    }

    /// Send a request that is answered by a flow; the node is started when there is none.
    pub fn begin(&self, request: &Request<'_>) -> Result<Pending, Error> {
        Ok(Pending { connection: self.send(request)? })
    }

    /// Wait for the answer, however long it takes.
    pub fn finish(&self, pending: Pending) -> Result<Grant, Error> {
        let mut connection = pending.connection;
        let answer = connection.receive(true, |answer, descriptors| match answer {
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

    /// Tell the node that gave out an end of a flow that it is not used any more. One that is gone needs no telling, and its
    /// successor may use the same numbers for another flow.
    pub fn release(&self, flow_id: u64, side: u64, node: &Node) {
        let Some(mut connection) = self.take_idle(|each| each.node == *node).or_else(|| self.connect(false).ok())
        else {
            return;
        };
        if connection.node != *node || connection.send(&Request::Dealloc { flow_id, side }).is_ok() {
            self.keep(connection);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, connection: Connection) {
        self.idle().push(connection);
    }

    fn take_idle(&self, fits: impl Fn(&Connection) -> bool) -> Option<Connection> {
        let mut idle = self.idle();
        let index = idle.iter().rposition(fits)?;
        Some(idle.swap_remove(index))
    }

    /// Send the request over a connection of its own.
    fn send(&self, request: &Request<'_>) -> Result<Connection, Error> {
        // The environment may name another directory than it did.
        let directory = std::env::var_os("OUROBOROS_RUNTIME_DIR");
        while let Some(mut connection) = self.take_idle(|each| each.directory == directory) {
            // Else the node that it led to is gone.
            if connection.send(request).is_ok() {
                return Ok(connection);
            }
        }
        let mut connection = self.connect(true)?;
        connection
            .send(request)
            .map_err(|error| Error::Node(format!("the node does not take the request: {error}")))?;
        Ok(connection)
    }

    fn connect(&self, start: bool) -> Result<Connection, Error> {
        let (socket, node) = open(start)?;
        let mut connection = Connection::new(socket, node);
        let hello = Request::Hello { program: &self.program, instance: self.instance };
        connection
            .send(&hello)
            .map_err(|error| Error::Node(format!("the node does not let this program in: {error}")))?;
        connection.receive(false, |answer, _| match answer {
            Answer::Done(_) => Ok(()),
            Answer::Failed(kind, text) => Err(Error::Refused { kind, text }),
            Answer::Granted(_) => Err(Error::Protocol("the node answered a hello with a flow".into())),
        })??;
        Ok(connection)
    }
}

/// A socket that is connected to the node, which is started if need be.
fn open(start: bool) -> Result<(UnixStream, Node), Error> {
    let directory = runtime_dir();
    let path = socket_path(&directory)?;
    if let Some(found) = try_connect(&path)? {
        return Ok(found);
    }
    if !start || std::env::var_os("OUROBOROS_AUTOSTART").is_some_and(|value| value == "0") {
        return Err(Error::Node(format!("no node runs in {}: start one with `irmd`", directory.display())));
    }
    if is_privileged() {
        // It would run whatever the environment says, with the rights of this program.
        let shown = directory.display();
        return Err(Error::Node(format!(
            "no node runs in {shown}, and a program with the rights of somebody else starts none: run `irmd`"
        )));
    }
    start_node(&directory, || try_connect(&path))
}

fn try_connect(path: &Path) -> Result<Option<(UnixStream, Node)>, Error> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};

    let shown = path.display();
    let socket = match UnixStream::connect(path) {
        Err(error) if [NotFound, ConnectionRefused].contains(&error.kind()) => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => return Err(Error::Limit(error.to_string())),
        Err(error) => return Err(Error::Node(format!("cannot reach the node at {shown}: {error}"))),
        Ok(socket) => socket,
    };
    let peer =
        socket_peercred(&socket).map_err(|error| Error::Node(format!("cannot tell who is at {shown}: {error}")))?;
    let owner = peer.uid.as_raw();
    if ![0, user()].contains(&owner) {
        // Whoever gets to a name in /tmp first must not become the node of everybody.
        return Err(Error::Node(format!(
            "the node at {shown} belongs to user {owner}: set OUROBOROS_RUNTIME_DIR to a directory of yours"
        )));
    }
    Ok(Some((socket, Node { pid: peer.pid.as_raw_nonzero().get(), path: path.to_owned() })))
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
