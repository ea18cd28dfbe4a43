//! The ring of a program, for the stack.

use std::io;
use std::os::fd::BorrowedFd;

use ouroboros_shm::endpoint::{Endpoint, Error, Reader, Writer};
use ouroboros_shm::layout::{CAPACITY, state};
use ouroboros_stack::ring::{End, Flags, Read, Ring, Write};

/// The node's side of the channel of a program.
#[derive(Debug)]
pub struct Program(Endpoint);

impl Program {
    /// `endpoint`: the node's side.
    pub fn new(endpoint: Endpoint) -> Self {
        Program(endpoint)
    }

    /// The descriptor that tells of news. It is edge-triggered: after each event, look at all there is.
    pub(crate) fn pollable(&self) -> io::Result<BorrowedFd<'_>> {
        self.0.pollable().map_err(io::Error::other)
    }

    /// The same, to take it out of a poller.
    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.0.bell()
    }

    /// The descriptor hung up: note the death of a program that did not say a word.
    pub(crate) fn note_hang_up(&self) {
        // It asks the system, and remembers.
        let _ = self.0.ended();
    }
}

fn end_of(error: Error) -> End {
    match error {
        Error::PeerClosed => End::Closed,
        Error::Down => End::Down,
        Error::Refused => End::Refused,
        // A program that breaks its ring did not let go in order, either.
        _ => End::Died,
    }
}

/// The right to read what the program wrote.
#[derive(Debug)]
pub struct From<'a>(Reader<'a>);

/// The right to write to the program.
#[derive(Debug)]
pub struct To<'a>(Writer<'a>);

impl Ring for Program {
    type Reader<'a> = From<'a>;
    type Writer<'a> = To<'a>;
    const CAPACITY: usize = CAPACITY;

    fn reader(&self) -> Result<From<'_>, End> {
        self.0.reader().map(From).map_err(end_of)
    }

    fn writer(&self) -> Result<To<'_>, End> {
        self.0.writer().map(To).map_err(end_of)
    }

    fn has_news(&self) -> bool {
        self.0.has_news()
    }

    fn rest(&self) -> bool {
        let seen = self.0.ended();
        // An error is a change, which the next look finds.
        let _ = seen.and_then(|seen| self.0.watch(seen));
        self.0.ended() != seen
    }

    fn want_room(&self, length: usize) -> bool {
        self.0.want_room(length) == Ok(true)
    }

    fn forget_room(&self) {
        // Fails when the flow is closed, which shows elsewhere.
        let _ = self.0.forget_room();
    }

    fn has_room(&self, length: usize) -> bool {
        self.0.has_room(length) != Ok(false)
    }

    fn is_read(&self) -> bool {
        self.0.transmit_queue().is_ok_and(|queued| queued == 0)
    }

    fn close(&self, died: bool) {
        if died {
            self.0.close_as_dead();
        } else {
            self.0.close();
        }
    }

    fn flags(&self) -> Flags {
        let error = self.0.writer().err();
        Flags { down: error == Some(Error::Down), refuses: error == Some(Error::Refused) }
    }

    fn show(&self, flags: Flags) {
        let bits = if flags.down { state::DOWN } else { 0 } | if flags.refuses { state::REFUSES } else { 0 };
        // A side that has ended needs no flags.
        let _ = self.0.set_state(bits);
    }
}

impl Read for From<'_> {
    fn available(&mut self) -> Result<Option<usize>, End> {
        self.0.available().map_err(end_of)
    }

    fn append_to(&mut self, bytes: &mut Vec<u8>, length: usize) {
        self.0.append_to(bytes, length);
    }
}

impl Write for To<'_> {
    fn stage(&mut self, packet: &[u8]) -> Result<bool, End> {
        self.0.stage(packet).map_err(end_of)
    }
}
