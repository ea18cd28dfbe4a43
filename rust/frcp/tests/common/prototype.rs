//! A peer that behaves as the specification says the C prototype does, faults of the protocol included. Deliberately plain:
//! maps instead of rings, everything looked up every time, and nothing shared with the crate but the time.

use std::collections::{BTreeMap, VecDeque};

use super::{End, MS, SECOND};

const DATA: u8 = 1;
const DRF: u8 = 2;
const ACK: u8 = 4;
const FC: u8 = 8;
const RDVS: u8 = 16;

const RECEIVER_INACTIVITY: u64 = 141;
const SENDER_INACTIVITY: u64 = 146;
const GIVE_UP: u64 = 120 * SECOND;
/// Slots between the layer and the program.
pub const RING: usize = 1023;

struct Kept {
    packet: Vec<u8>,
    first_sent: u64,
    due: u64,
}

pub struct Prototype {
    pub reliable: bool,
    next_random: u32,
    now: u64,
    // Sending.
    seqno: u32,
    send_lwe: u32,
    send_rwe: u32,
    send_active: Option<u64>,
    kept: BTreeMap<u32, Kept>,
    rto: u64,
    timed: Option<(u32, u64)>,
    // Receiving.
    lwe: u32,
    rwe: u32,
    acked: u32,
    receive_active: Option<u64>,
    queue: BTreeMap<u32, Vec<u8>>,
    acks_due: VecDeque<u64>,
    ring: VecDeque<Vec<u8>>,
    out: VecDeque<Vec<u8>>,
    pub read: Vec<Vec<u8>>,
    /// The program reads as soon as it can.
    pub eager: bool,
    pub down: bool,
    /// Packets that found the ring full: its whole host would have stopped.
    pub ring_overruns: u64,
    pub most_in_ring: usize,
    pub duplicates: u64,
    pub dropped: u64,
    /// First sequence number that it chose in each run.
    pub runs: Vec<u32>,
}

fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

fn word(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

impl Prototype {
    pub fn new(reliable: bool, first: u32) -> Self {
        Prototype {
            reliable,
            next_random: first,
            now: 0,
            seqno: 0,
            send_lwe: 0,
            send_rwe: 64,
            send_active: None,
            kept: BTreeMap::new(),
            rto: SECOND,
            timed: None,
            lwe: 0,
            rwe: 0,
            acked: 0,
            receive_active: None,
            queue: BTreeMap::new(),
            acks_due: VecDeque::new(),
            ring: VecDeque::new(),
            out: VecDeque::new(),
            read: vec![],
            eager: true,
            down: false,
            ring_overruns: 0,
            most_in_ring: 0,
            duplicates: 0,
            dropped: 0,
            runs: vec![],
        }
    }

    fn receive_age(&self, now: u64) -> u64 {
        self.receive_active.map_or(u64::MAX, |at| now / SECOND - at / SECOND)
    }

    /// A blocking write would go on.
    pub fn can_write(&self) -> bool {
        self.send_active.is_none() || self.seqno != self.send_rwe
    }

    pub fn write(&mut self, now: u64, message: &[u8]) {
        assert!(self.can_write());
        if self.send_active.is_none_or(|at| now / SECOND - at / SECOND > SENDER_INACTIVITY) {
            self.seqno = self.next_random;
            self.runs.push(self.seqno);
            self.next_random = self.next_random.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15);
            self.send_lwe = self.seqno;
            self.send_rwe = self.seqno.wrapping_add(64);
        }
        let mut flags = DATA;
        if self.seqno == self.send_lwe {
            flags |= DRF;
        }
        let (mut window, mut ackno) = (0, 0);
        if self.receive_age(now) < RECEIVER_INACTIVITY {
            flags |= FC;
            window = self.rwe;
        }
        if self.reliable && self.receive_age(now) <= 10 {
            flags |= ACK;
            ackno = self.lwe;
            self.acked = self.lwe;
        }
        let packet = build(flags, window, self.seqno, ackno, message);
        self.out.push_back(packet.clone());
        if self.reliable {
            self.timed.get_or_insert((self.seqno, now));
            self.kept.insert(self.seqno, Kept { packet, first_sent: now, due: now + self.rto + 5 * MS });
        } else {
            self.send_lwe = self.send_lwe.wrapping_add(1);
        }
        self.seqno = self.seqno.wrapping_add(1);
        self.send_active = Some(now);
    }

    /// The program reads a message, if there is one in order.
    pub fn read_one(&mut self, now: u64) -> bool {
        self.now = now;
        self.drain();
        let Some(message) = self.queue.remove(&self.lwe) else { return false };
        self.lwe = self.lwe.wrapping_add(1);
        // In mode U, too: so each lost packet shrinks the window.
        self.rwe = self.rwe.wrapping_add(1);
        self.read.push(message);
        self.drain();
        true
    }

    /// The library does not look into its ring while there is something to read.
    fn drain(&mut self) {
        while !self.queue.contains_key(&self.lwe) {
            let Some(packet) = self.ring.pop_front() else { return };
            self.process(&packet);
        }
    }

    fn process(&mut self, packet: &[u8]) {
        let now = self.now;
        if packet.len() < 12 {
            return;
        }
        let (flags, seqno, ackno) = (packet[0], word(packet, 4), word(packet, 8));
        if self.receive_age(now) > RECEIVER_INACTIVITY {
            if flags & DRF != 0 {
                self.lwe = seqno;
                self.acked = seqno;
                self.rwe = seqno.wrapping_add(256);
                self.queue.clear();
            } else if flags & DATA != 0 {
                self.dropped += 1;
                return;
            }
        }
        self.receive_active = Some(now);
        if flags & RDVS != 0 {
            return self.out.push_back(build(FC, self.rwe, 0, 0, &[]));
        }
        if flags & ACK != 0 && after(ackno, self.send_lwe) {
            self.send_lwe = ackno;
            if let Some((timed, at)) = self.timed
                && after(ackno, timed)
            {
                self.timed = None;
                self.rto = (2 * (now - at)).max(MS);
            }
        }
        if flags & FC != 0 {
            self.send_rwe = rebuild(self.send_rwe, word(packet, 0) & 0xFF_FFFF);
        }
        if flags & DATA == 0 {
            return self.acknowledge(now);
        }
        if after(self.lwe, seqno) {
            self.duplicates += 1;
            self.acked = self.lwe.wrapping_sub(1);
            return self.acknowledge(now);
        }
        if self.reliable {
            if !after(self.rwe, seqno) || seqno.wrapping_sub(self.lwe) >= 256 || self.queue.contains_key(&seqno) {
                self.duplicates += u64::from(self.queue.contains_key(&seqno));
                self.dropped += 1;
                return self.acknowledge(now);
            }
            self.queue.insert(seqno, packet[12..].to_vec());
            // Stored: an acknowledgement fires at the second tick from now, if then something has been read.
            self.acks_due.push_back(now + 12 * MS);
        } else {
            self.lwe = seqno;
            self.queue.clear();
            self.queue.insert(seqno, packet[12..].to_vec());
        }
    }

    /// Sent only if it says something new; otherwise forgotten.
    fn acknowledge(&mut self, now: u64) {
        let lately = self.send_active.is_some_and(|at| now - at < 5 * MS);
        if after(self.lwe, self.acked) && !lately {
            self.acked = self.lwe;
            self.out.push_back(build(ACK | FC, self.rwe, 0, self.lwe, &[]));
        }
    }

    fn tick(&mut self, now: u64) {
        while self.acks_due.front().is_some_and(|at| *at <= now) {
            self.acks_due.pop_front();
            if self.reliable {
                self.acknowledge(now);
            }
        }
        let lwe = self.send_lwe;
        self.kept.retain(|seqno, kept| kept.due > now || !after(lwe, *seqno));
        if self.kept.values().any(|kept| kept.due <= now && now - kept.first_sent > GIVE_UP) {
            self.down = true;
            self.kept.clear();
        }
        if self.kept.iter().any(|(seqno, kept)| kept.due <= now && self.timed.is_some_and(|timed| timed.0 == *seqno)) {
            self.rto *= 2;
            self.timed = None;
        }
        for kept in self.kept.values_mut().filter(|kept| kept.due <= now) {
            // The same bytes, the window of then included; only the acknowledgement is new.
            kept.packet[8..12].copy_from_slice(&self.lwe.to_be_bytes());
            self.out.push_back(kept.packet.clone());
            kept.due = now + self.rto + 5 * MS;
        }
    }

    pub fn is_acknowledged(&self) -> bool {
        self.send_lwe == self.seqno
    }
}

fn build(flags: u8, window: u32, seqno: u32, ackno: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = (u32::from(flags) << 24 | window & 0xFF_FFFF).to_be_bytes().to_vec();
    packet.extend(seqno.to_be_bytes());
    packet.extend(ackno.to_be_bytes());
    packet.extend(payload);
    packet
}

/// The upper eight bits of the present edge, and a carry in one direction only.
fn rebuild(edge: u32, field: u32) -> u32 {
    let new = edge & 0xFF00_0000 | field;
    if after(edge, new) && edge.wrapping_sub(new) > 0x7F_FFFF { new.wrapping_add(0x0100_0000) } else { new }
}

impl End for Prototype {
    fn receive(&mut self, now: u64, packet: &[u8]) {
        self.now = now;
        if self.ring.len() >= RING {
            self.ring_overruns += 1;
            return;
        }
        self.ring.push_back(packet.to_vec());
        self.most_in_ring = self.most_in_ring.max(self.ring.len());
        self.drain();
        while self.eager && self.read_one(now) {}
    }

    fn transmit(&mut self, _now: u64, out: &mut Vec<u8>) -> bool {
        let Some(packet) = self.out.pop_front() else { return false };
        out.extend_from_slice(&packet);
        true
    }

    fn deadline(&mut self) -> Option<u64> {
        self.acks_due.front().copied().into_iter().chain(self.kept.values().map(|kept| kept.due)).min()
    }

    fn timeout(&mut self, now: u64) {
        self.now = now;
        self.tick(now);
    }
}
