//! Small programs that write and read data.

use ouroboros_stack::ring::End;

use crate::queue::Queue;

/// The behaviour of a program on its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Writes `count` packets of `length` bytes, the first eight of which have its number, one each `interval` ns; 0: as many
    /// as there is room for. Reads what comes back. `closes`: lets go after the last one.
    Source {
        /// Packets.
        count: u64,
        /// Bytes of each.
        length: usize,
        /// Nanoseconds.
        interval: u64,
        /// Lets go after the last one.
        closes: bool,
    },
    /// Reads.
    Sink,
    /// Writes back what it reads.
    Echo,
}

/// Counters of a program, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that it wrote, and read.
    pub written: u64,
    /// Packets that it read.
    pub read: u64,
    /// Bytes of the packets that it read.
    pub bytes: u64,
    /// Packets read whose number does not follow the one before.
    pub disordered: u64,
    /// Why it reads nothing more.
    pub end: Option<End>,
}

/// A program on a flow.
#[derive(Debug)]
pub(crate) struct Running {
    program: Program,
    pub(crate) queue: Queue,
    pub(crate) tally: Tally,
    /// When it runs next.
    pub(crate) due: Option<u64>,
    /// The number of the packet that is to come, and when the next one is to be written.
    expected: u64,
    next_at: u64,
    packet: Vec<u8>,
    /// A packet that it read and could not write back yet.
    unsent: Option<Vec<u8>>,
}

impl Running {
    pub(crate) fn new(program: Program, queue: Queue, now: u64) -> Self {
        let packet = vec![0; if let Program::Source { length, .. } = program { length } else { 0 }];
        Running { program, queue, tally: Tally::default(), due: None, expected: 0, next_at: now, packet, unsent: None }
    }

    /// Do all that can be done now; when there is more to do though nothing rings.
    pub(crate) fn run(&mut self, now: u64) -> Option<u64> {
        let writes = self.write(now);
        self.read();
        writes
    }

    fn write(&mut self, now: u64) -> Option<u64> {
        let Program::Source { count, interval, closes, .. } = self.program else { return None };
        while self.tally.written < count {
            if now < self.next_at {
                return Some(self.next_at);
            }
            if let Some(number) = self.packet.first_chunk_mut::<8>() {
                *number = self.tally.written.to_be_bytes();
            }
            // An end shows at the next read.
            if self.queue.write(&self.packet) != Ok(true) {
                return None;
            }
            self.tally.written += 1;
            self.next_at += interval;
        }
        if closes {
            self.queue.let_go(false);
        }
        None
    }

    fn read(&mut self) {
        loop {
            if let Some(packet) = self.unsent.take()
                && self.queue.write(&packet) == Ok(false)
            {
                self.unsent = Some(packet);
                return;
            }
            match self.queue.read() {
                Ok(Some(packet)) => self.take(packet),
                Ok(None) => return,
                Err(end) => {
                    self.tally.end = Some(end);
                    return;
                }
            }
        }
    }

    fn take(&mut self, packet: Vec<u8>) {
        self.tally.read += 1;
        self.tally.bytes += packet.len() as u64;
        if let Some(number) = packet.first_chunk::<8>().map(|number| u64::from_be_bytes(*number)) {
            self.tally.disordered += u64::from(number != self.expected);
            self.expected = number.wrapping_add(1);
        }
        if self.program == Program::Echo {
            self.tally.written += 1;
            self.unsent = Some(packet);
        }
    }
}
