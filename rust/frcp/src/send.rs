//! What is to be sent: the bytes of messages, cut into packets, until they are acknowledged.

use std::collections::VecDeque;

use crate::HEADER;
use crate::bytes::Bytes;
use crate::congestion::Stamp;
use crate::header::flag;
use crate::seq::before;

/// Bytes of lower layers that every packet is reckoned to have, so that many small packets count, too.
const ALLOWANCE: u64 = 60;

/// Where a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Never sent.
    Unsent,
    /// Under way.
    Sent,
    /// Taken for lost.
    Lost,
    /// Acknowledged.
    Delivered,
}

/// A packet that is not acknowledged, or not the oldest such.
#[derive(Debug)]
pub struct Packet {
    position: u64,
    length: u32,
    /// Flags of its header: those of fragments, and DRF once it was sent with it.
    pub flags: u8,
    /// Where it is.
    pub state: State,
    /// How many times it was sent, to 255.
    pub transmissions: u8,
    /// The number of its last transmission among all.
    pub transmission: u64,
    /// When it was sent last, and first.
    pub sent: u64,
    pub first_sent: u64,
    /// What the congestion controller wants to know when it is delivered.
    pub stamp: Stamp,
}

impl Packet {
    /// Bytes that it counts.
    pub fn cost(&self) -> u64 {
        u64::from(self.length) + HEADER as u64 + ALLOWANCE
    }
}

/// The send queue of a flow.
#[derive(Debug)]
pub struct Send {
    bytes: Bytes,
    packets: VecDeque<Packet>,
    /// The number of the first of `packets`.
    first: u32,
    /// Packets that were sent at least once.
    sent: usize,
    unsent: usize,
    /// What is sent need not be kept.
    forgetful: bool,
}

impl Send {
    /// An empty queue, whose first packet will have this number. `forgetful`: nothing is sent twice. `spare`: memory that an empty queue
    /// keeps, bytes.
    pub fn new(first: u32, forgetful: bool, spare: usize) -> Self {
        Send { bytes: Bytes::new(spare), packets: VecDeque::new(), first, sent: 0, unsent: 0, forgetful }
    }

    /// The number of the oldest packet in the queue, or of the next that is written.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The number of the next packet that is sent for the first time.
    pub fn next(&self) -> u32 {
        self.first.wrapping_add(self.sent as u32)
    }

    /// Packets that were sent and are not given up.
    pub fn outstanding(&self) -> usize {
        self.sent
    }

    /// Packets in the queue.
    pub fn total(&self) -> usize {
        self.packets.len()
    }

    /// Packets were never sent.
    pub fn has_unsent(&self) -> bool {
        self.sent < self.packets.len()
    }

    /// Bytes that were never sent.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Bytes in memory.
    pub fn kept(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes in memory, and what is known of each packet.
    pub fn memory(&self) -> usize {
        self.kept() + self.packets.len() * size_of::<Packet>()
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Add a message in one packet.
    pub fn push(&mut self, message: &[u8], flags: u8) {
        self.packets.push_back(Packet {
            position: self.bytes.end(),
            length: message.len() as u32,
            flags: flags | flag::DATA,
            state: State::Unsent,
            transmissions: 0,
            transmission: 0,
            sent: 0,
            first_sent: 0,
            stamp: Stamp::default(),
        });
        self.bytes.push(message);
        self.unsent += message.len();
    }

    /// Add a message in as many packets as it needs, with the flags of fragments.
    pub fn push_fragments(&mut self, message: &[u8], longest: usize) {
        if message.is_empty() {
            return self.push(message, flag::FIRST);
        }
        let mut rest = message.chunks(longest.max(1)).peekable();
        let mut flags = flag::FIRST;
        while let Some(part) = rest.next() {
            let more = if rest.peek().is_some() { flag::MORE } else { 0 };
            self.push(part, flags | more);
            flags = 0;
        }
    }

    fn place(&self, seqno: u32) -> usize {
        seqno.wrapping_sub(self.first) as usize
    }

    /// The packet with a number.
    pub fn get(&self, seqno: u32) -> Option<&Packet> {
        self.packets.get(self.place(seqno))
    }

    /// The packet with a number.
    pub fn get_mut(&mut self, seqno: u32) -> Option<&mut Packet> {
        let place = self.place(seqno);
        self.packets.get_mut(place)
    }

    /// The oldest packet that was sent.
    pub fn oldest(&self) -> Option<&Packet> {
        self.packets.front().filter(|_| self.sent > 0)
    }

    /// Append the payload of a packet.
    pub fn payload(&self, seqno: u32, out: &mut Vec<u8>) {
        if let Some(packet) = self.get(seqno) {
            self.bytes.copy(packet.position, packet.length as usize, out);
        }
    }

    /// The next packet was sent for the first time.
    pub fn mark_sent(&mut self) {
        if let Some(packet) = self.packets.get(self.sent) {
            self.unsent -= packet.length as usize;
            self.sent += 1;
            if self.forgetful {
                self.bytes.release(packet.position + u64::from(packet.length));
            }
        }
    }

    /// Give up the oldest packet if `done` says so; false: it stays.
    pub fn pop_if(&mut self, done: impl FnOnce(u32, &Packet) -> bool) -> bool {
        let first = self.first;
        let Some(packet) = self.packets.front().filter(|packet| self.sent > 0 && done(first, packet)) else {
            return false;
        };
        if !self.forgetful {
            self.bytes.release(packet.position + u64::from(packet.length));
        }
        self.packets.pop_front();
        self.first = self.first.wrapping_add(1);
        self.sent -= 1;
        true
    }

    /// A number was sent and is not given up.
    pub fn is_outstanding(&self, seqno: u32) -> bool {
        !before(seqno, self.first) && before(seqno, self.next())
    }

    /// Drop everything.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.bytes.clear();
        self.sent = 0;
        self.unsent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_into_fragments() {
        let mut send = Send::new(u32::MAX, false, 1 << 20);
        send.push_fragments(b"abcdefg", 3);
        send.push_fragments(b"xyz", 3);
        send.push_fragments(b"", 3);
        let flags = |n: u32| send.get(u32::MAX.wrapping_add(n)).map(|packet| packet.flags);
        let (first, more, data) = (flag::FIRST, flag::MORE, flag::DATA);
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(flags),
            [Some(data | first | more), Some(data | more), Some(data), Some(data | first), Some(data | first), None]
        );
        let mut out = vec![];
        send.payload(1, &mut out);
        assert_eq!(out, b"g");
        assert_eq!(send.unsent(), 10);
    }

    #[test]
    fn packets_are_given_up_in_order_once_they_were_sent() {
        let mut send = Send::new(7, false, 1 << 20);
        send.push(b"one", 0);
        send.push(b"two", 0);
        assert!(!send.pop_if(|_, _| true), "it was not sent");
        send.mark_sent();
        assert_eq!((send.first(), send.next(), send.unsent()), (7, 8, 3));
        assert!(send.is_outstanding(7) && !send.is_outstanding(8) && !send.is_outstanding(6));
        assert!(send.pop_if(|seqno, _| seqno == 7));
        assert_eq!((send.first(), send.outstanding(), send.kept()), (8, 0, 3));
    }
}
