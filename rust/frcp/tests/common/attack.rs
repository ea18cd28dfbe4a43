//! Two sides of a flow, and somebody between them who drops, repeats, changes and invents packets.

use ouroboros_frcp::{Config, Connection, Peer, Pressure, UNSENT};

/// Packets that one call of `poll_transmit` after another may give at the same time: both windows, and some.
const MOST: usize = 100_000;
/// Bytes of a message.
const LONGEST: usize = 3000;

pub struct Step {
    pub kind: u8,
    pub side: usize,
    pub value: u16,
}

pub struct Attack {
    sides: [Connection; 2],
    /// Packets under way to each side.
    wire: [Vec<Vec<u8>>; 2],
    now: u64,
    unsent: usize,
}

impl Attack {
    /// `first`: what flow it is.
    pub fn new(first: u8) -> Self {
        let own = Peer::Own { sack: first & 2 != 0, fragments: first & 4 != 0, window: 64 << (first >> 5) };
        let peer = if first & 8 != 0 { Peer::Prototype } else { own };
        let thrifty = first & 16 != 0;
        let unsent = if thrifty { 1000 } else { UNSENT };
        let config = Config { reliable: first & 1 != 0, peer, max_packet: 100, mpl: 5_000_000_000, unsent, thrifty };
        let sides = [1u64, 0xFFFF_FFF0].map(|seed| Connection::new(config, seed, 0));
        Attack { sides, wire: [vec![], vec![]], now: 0, unsent }
    }

    pub fn step(&mut self, step: &Step) {
        let value = usize::from(step.value);
        match step.kind % 10 {
            0 => self.write(step.side, value % LONGEST),
            1 => self.sides[step.side].consume(),
            2 => self.pass(u64::from(step.value) * 10_000),
            3 => self.pass(u64::from(step.value) * 10_000_000),
            4 => self.deliver(step.side, 1 + value % 64),
            5 => self.lose(step.side, value),
            6 => self.repeat(step.side, value),
            7 => self.change(step.side, value),
            8 => self.press(step.side, value),
            _ if value % 16 == 0 => self.sides[step.side].close(self.now),
            _ => self.invent(step.side, value),
        }
        self.poll();
    }

    fn write(&mut self, side: usize, length: usize) {
        let fits = self.sides[side].can_write() && length <= self.sides[side].limit();
        let result = self.sides[side].write(self.now, &vec![7; length]);
        assert_eq!(result.is_ok(), fits);
    }

    fn press(&mut self, side: usize, value: usize) {
        let pressure = [Pressure::Easy, Pressure::Tight, Pressure::Over][value % 3];
        self.sides[side].press(pressure);
        assert!(self.sides[side].admits(LONGEST));
        assert_eq!(self.sides[side].admits(1 << 20), pressure < Pressure::Over);
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        for side in &mut self.sides {
            if side.deadline().is_some_and(|at| at <= self.now) {
                side.timeout(self.now);
            }
        }
    }

    fn poll(&mut self) {
        for (side, connection) in self.sides.iter_mut().enumerate() {
            let mut count = 0;
            loop {
                let mut packet = vec![];
                if !connection.poll_transmit(self.now, &mut packet) {
                    break;
                }
                assert!((12..=100).contains(&packet.len()), "{}", packet.len());
                self.wire[1 - side].push(packet);
                count += 1;
                assert!(count < MOST, "it never stops sending");
            }
            assert!(connection.stats().unsent < (self.unsent + LONGEST) as u64);
            // What nobody delivers is lost in the end.
            let excess = self.wire[1 - side].len().saturating_sub(1000);
            self.wire[1 - side].drain(..excess);
        }
    }

    fn deliver(&mut self, side: usize, count: usize) {
        let count = count.min(self.wire[side].len());
        for packet in self.wire[side].drain(..count) {
            self.sides[side].receive(self.now, &packet);
        }
    }

    fn lose(&mut self, side: usize, place: usize) {
        if !self.wire[side].is_empty() {
            let place = place % self.wire[side].len();
            self.wire[side].remove(place);
        }
    }

    fn repeat(&mut self, side: usize, place: usize) {
        if !self.wire[side].is_empty() {
            let packet = self.wire[side][place % self.wire[side].len()].clone();
            self.wire[side].push(packet);
        }
    }

    fn change(&mut self, side: usize, value: usize) {
        if let Some(packet) = self.wire[side].first_mut() {
            let place = (value >> 3) % packet.len();
            packet[place] ^= 1 << (value & 7);
        }
    }

    fn invent(&mut self, side: usize, value: usize) {
        let mut packet = self.wire[side].first().cloned().unwrap_or_else(|| vec![0; 12]);
        packet[0] = value as u8;
        packet.resize(value >> 8, value as u8);
        self.sides[side].receive(self.now, &packet);
    }
}

/// All steps of an input, four bytes each after the first byte.
pub fn run(input: &[u8]) {
    let Some((first, steps)) = input.split_first() else { return };
    let mut attack = Attack::new(*first);
    for step in steps.chunks_exact(4) {
        let value = u16::from_le_bytes([step[2], step[3]]);
        attack.step(&Step { kind: step[0], side: usize::from(step[1] & 1), value });
    }
}
