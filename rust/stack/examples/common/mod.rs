//! Programs without memory of their own, for measurements.
#![allow(clippy::unwrap_used, dead_code)]

use std::cell::Cell;

use ouroboros_stack::ring::{End, Flags, Read, Ring, Write};
use ouroboros_stack::{Carrier, FlowId, MemberId, Names, Setup, Stack, User};

/// A program that has so many packets of so many bytes to send, or counts those that come.
#[derive(Debug)]
pub struct Program {
    pub left: Cell<usize>,
    pub length: usize,
    pub came: Cell<usize>,
}

#[derive(Debug)]
pub struct Side<'a>(&'a Program);

impl Read for Side<'_> {
    fn available(&mut self) -> Result<Option<usize>, End> {
        Ok((self.0.left.get() > 0).then_some(self.0.length))
    }

    fn append_to(&mut self, bytes: &mut Vec<u8>, length: usize) {
        self.0.left.set(self.0.left.get() - 1);
        bytes.resize(bytes.len() + length, 7);
    }
}

impl Write for Side<'_> {
    fn stage(&mut self, packet: &[u8]) -> Result<bool, End> {
        assert_eq!(packet.len(), self.0.length);
        self.0.came.set(self.0.came.get() + 1);
        Ok(true)
    }
}

impl Ring for Program {
    type Reader<'a> = Side<'a>;
    type Writer<'a> = Side<'a>;
    const CAPACITY: usize = 1 << 30;

    fn reader(&self) -> Result<Side<'_>, End> {
        Ok(Side(self))
    }

    fn writer(&self) -> Result<Side<'_>, End> {
        Ok(Side(self))
    }

    fn has_news(&self) -> bool {
        self.left.get() > 0
    }

    fn rest(&self) -> bool {
        false
    }

    fn want_room(&self, _: usize) -> bool {
        true
    }

    fn forget_room(&self) {}

    fn has_room(&self, _: usize) -> bool {
        true
    }

    fn is_read(&self) -> bool {
        true
    }

    fn close(&self, _: bool) {}

    fn flags(&self) -> Flags {
        Flags::default()
    }

    fn show(&self, _: Flags) {}
}

/// A raw flow without a timeout.
pub fn add(
    stack: &mut Stack<Program>,
    names: &mut Names,
    member: MemberId,
    carrier: Carrier,
    user: User<Program>,
) -> FlowId {
    let id = names.draw();
    stack.add(0, Setup { eid: 77, peer_eid: 77, mtu: 9000, ..Setup::new(id, member, carrier, user) });
    id
}
