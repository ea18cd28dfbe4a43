//! Congestion of a flow through a unicast layer (docs/spec/unicast-data.md 5): members mark packets by how full their queues
//! are, the receiver sums up the marks and tells the sender, and the sender slows down. Pure, a state for each direction.
//!
//! The schedule of the receiver, the scale and the reaction of the sender are those of the C prototype, so that both share a
//! way fairly. But a sender that was idle begins anew instead of stretching its slot, the packet that is too much for a slot
//! is sent before the wait and not after, and what the receiver told is not forgotten while much is lost. What it told counts
//! for as long as it was the case, not only if it was at the end of a slot, and slots of different flows do not begin at one
//! time: otherwise some flows always end theirs when the queue is empty, and others when it is full.

/// The sum of marks that is told at the most: what marks of 63 come to.
const MOST_TOLD: u16 = 2079;
/// What is believed at the most: more would turn the sign in the prototype, which divides by one more.
const MOST_BELIEVED: u64 = 8191;

/// The marks of packets that came.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    ece: u16,
    count: u32,
}

impl Receiver {
    /// Marks without effect need not be noted.
    pub(crate) fn is_calm(&self) -> bool {
        self.ece == 0
    }

    /// A packet came with that mark; what the sender is to be told, if anything.
    pub(crate) fn note(&mut self, mark: u8) -> Option<u16> {
        let tell = match (self.ece, mark) {
            (0, 0) => false,
            (0, mark) => {
                (self.ece, self.count) = (mark.into(), 0);
                true
            }
            (_, 0) => {
                self.ece /= 4;
                self.ece == 0
            }
            (ece, mark) => {
                self.ece = ece - ece / 32 + u16::from(mark);
                self.count = self.count.wrapping_add(1);
                self.count % 8 == 2
            }
        };
        tell.then_some(self.ece.min(MOST_TOLD))
    }
}

/// Bits of the length of a slot at first and at the most, ns: 17 ms. And at the least: 16 us.
const SLOT: u32 = 24;
const SHORTEST: u32 = 14;
/// Bytes that a slot carries at first, and by how much that rises.
const FIRST: u64 = 65_536;
/// Packets of a slot that is as long as it should be.
const FEW: u64 = 8;
const MANY: u64 = 64;
/// So many packets after the last word of the receiver it is out of date, if so much time has passed, too, ns: where much is
/// lost, the receiver has less to tell of than is sent.
const EXPIRY: u32 = 32;
const PATIENCE: u64 = 1 << SLOT;

/// Holds the sender back.
#[derive(Debug)]
pub(crate) struct Sender {
    /// The number of the slot, and the bits of its length.
    slot: u64,
    bits: u32,
    /// Sent in it, and when something was sent last.
    bytes: u64,
    packets: u64,
    last: u64,
    /// Bytes that may be, and by how much that rises.
    limit: u64,
    step: u64,
    /// The receiver has told of congestion, at any time.
    warned: bool,
    ece: u64,
    /// Packets since it did, and when it did.
    age: u32,
    told_at: u64,
    /// When the flow began, and its first slot.
    origin: u64,
    /// Until when it was reckoned for this slot: its ns, those in which `ece` was 0, and the sum of `ece` over all.
    reckoned: u64,
    time: u64,
    calm: u64,
    pressure: u64,
    /// Nothing is sent before.
    until: u64,
}

impl Sender {
    pub(crate) fn new(now: u64) -> Self {
        Sender {
            slot: 0,
            bits: SLOT,
            bytes: 0,
            packets: 0,
            last: now,
            limit: FIRST,
            step: FIRST,
            warned: false,
            ece: 0,
            age: 0,
            told_at: now,
            origin: now,
            reckoned: now,
            time: 0,
            calm: 0,
            pressure: 0,
            until: 0,
        }
    }

    /// When the next packet may be sent; None: now.
    pub(crate) fn waits_until(&self, now: u64) -> Option<u64> {
        (now < self.until).then_some(self.until)
    }

    /// The receiver told something.
    pub(crate) fn told(&mut self, now: u64, ece: u16) {
        self.reckon(now);
        (self.ece, self.age, self.told_at, self.warned) = (MOST_BELIEVED.min(ece.into()), 0, now, true);
    }

    /// A packet was sent.
    pub(crate) fn sent(&mut self, now: u64, length: usize) {
        self.age = self.age.saturating_add(1);
        if self.age > EXPIRY && now > self.told_at + PATIENCE {
            self.reckon(now);
            self.ece = 0;
        }
        self.packets += 1;
        self.bytes += length as u64;
        let (slot, idle) = (self.at(now), now.saturating_sub(self.last));
        self.last = now;
        // A slot may be shorter than a host takes to wake up: missing one is no idleness.
        if slot > self.slot + 1 && idle > PATIENCE {
            self.begin_anew(now, length);
        } else if slot > self.slot {
            self.end_slot(now);
        }
        if self.bytes > self.limit {
            self.until = self.origin + ((self.slot + 1) << self.bits);
        }
    }

    /// The slot of that time.
    fn at(&self, now: u64) -> u64 {
        now.saturating_sub(self.origin) >> self.bits
    }

    /// What was told last was the case until now.
    fn reckon(&mut self, now: u64) {
        let time = now.saturating_sub(self.reckoned).min(1 << SLOT);
        self.reckoned = now;
        self.time += time;
        self.pressure += time * self.ece;
        if self.ece == 0 {
            self.calm += time;
        }
    }

    /// Nothing was sent for a while.
    fn begin_anew(&mut self, now: u64, length: usize) {
        if self.warned {
            (self.bits, self.limit, self.step) = (SLOT, FIRST, FIRST);
        }
        (self.slot, self.packets, self.bytes) = (self.at(now), 1, length as u64);
        (self.reckoned, self.time, self.calm, self.pressure) = (now, 0, 0, 0);
    }

    fn end_slot(&mut self, now: u64) {
        self.reckon(now);
        self.limit = match self.warned {
            false if self.bytes > self.limit => self.limit.saturating_mul(2).min(u64::MAX >> SLOT),
            false => self.limit,
            true => self.mixed(),
        };
        self.fit_slot();
        (self.slot, self.packets, self.bytes) = (self.at(now), 0, 0);
        (self.time, self.calm, self.pressure) = (0, 0, 0);
    }

    /// The next limit, by what was the case in each part of the slot: what was sent and a step more where there was no
    /// congestion, and less by as much as there was in the rest.
    fn mixed(&self) -> u64 {
        let [time, calm, pressure] = [self.time.max(1), self.calm, self.pressure].map(u128::from);
        let [limit, raised] = [self.limit, self.bytes + self.step].map(u128::from);
        // As `ece` is no more than is believed, no more is taken away than was there.
        let lowered = limit * (time - calm.min(time)) - limit * pressure / u128::from(MOST_BELIEVED + 1);
        ((raised * calm + lowered) / time) as u64
    }

    /// Let a slot have neither many packets nor few, at the same rate.
    fn fit_slot(&mut self) {
        while self.packets < FEW && self.bits < SLOT {
            self.bits += 1;
            (self.limit, self.step, self.packets) = (self.limit * 2, self.step * 2, self.packets * 2);
        }
        while self.packets > MANY && self.bits > SHORTEST {
            self.bits -= 1;
            (self.limit, self.step, self.packets) = (self.limit / 2, self.step / 2, self.packets / 2);
        }
    }
}

/// Both directions of a flow.
#[derive(Debug)]
pub(crate) struct Ecn {
    pub(crate) receiver: Receiver,
    pub(crate) sender: Sender,
}

impl Ecn {
    pub(crate) fn new(now: u64) -> Self {
        Ecn { receiver: Receiver::default(), sender: Sender::new(now) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn told(marks: &[u8]) -> Vec<(usize, u16)> {
        let mut receiver = Receiver::default();
        (1..).zip(marks).filter_map(|(number, mark)| Some((number, receiver.note(*mark)?))).collect()
    }

    #[test]
    fn the_sender_is_told_as_by_the_prototype() {
        let marks = [[3; 12].as_slice(), &[0; 8]].concat();
        assert_eq!(told(&marks), [(1, 3), (3, 9), (11, 33), (15, 0)]);
        assert_eq!(told(&[0; 100]), []);
    }

    #[test]
    fn no_mark_makes_more_than_the_prototype_can_bear() {
        let all = told(&[255; 10_000]);
        assert_eq!(all.iter().map(|(_, ece)| *ece).max(), Some(MOST_TOLD));
    }

    /// Bytes that a sender that always wants to sends in a while.
    fn rate(sender: &mut Sender, now: &mut u64, time: u64, length: usize) -> u64 {
        let (end, mut sent) = (*now + time, 0);
        while *now < end {
            if let Some(until) = sender.waits_until(*now) {
                *now = until;
                continue;
            }
            sender.sent(*now, length);
            sent += length as u64;
            *now += 1_000;
        }
        sent
    }

    #[test]
    fn a_sender_begins_slowly_and_is_soon_as_fast_as_it_likes() {
        let (mut sender, mut now) = (Sender::new(0), 0);
        assert!(rate(&mut sender, &mut now, 16 * MS, 1000) < 70_000);
        rate(&mut sender, &mut now, 100 * MS, 1000);
        assert_eq!(rate(&mut sender, &mut now, 10 * MS, 1000), 10_000_000);
    }

    #[test]
    fn a_word_of_congestion_slows_it_down_until_it_is_out_of_date() {
        let (mut sender, mut now) = (Sender::new(0), 0);
        rate(&mut sender, &mut now, 200 * MS, 1000);
        // As often as a receiver of marks says it.
        let mut slow = u64::MAX;
        for _ in 0..400 {
            sender.told(now, 913);
            slow = rate(&mut sender, &mut now, MS, 1000);
        }
        assert!(slow < 20_000, "{slow}");
        rate(&mut sender, &mut now, 3000 * MS, 1000);
        assert!(rate(&mut sender, &mut now, 10 * MS, 1000) > 1_000_000);
    }

    #[test]
    fn one_that_was_idle_begins_anew_and_does_not_wait_for_long() {
        let (mut sender, mut now) = (Sender::new(0), 0);
        sender.told(now, 0);
        for _ in 0..50 {
            sender.sent(now, 100);
            assert_eq!(sender.waits_until(now), None);
            now += 1000 * MS;
        }
        assert!((60_000..200_000).contains(&rate(&mut sender, &mut now, 17 * MS, 1000)));
        assert!(sender.waits_until(now).is_none_or(|until| until <= now + 17 * MS));
    }

    #[test]
    fn a_host_that_wakes_up_late_is_not_taken_for_idle() {
        let (mut sender, mut now) = (Sender::new(0), 0);
        sender.told(now, 0);
        rate(&mut sender, &mut now, 500 * MS, 1000);
        for (late, anew) in [(3 * MS, false), (1000 * MS, true)] {
            now = sender.waits_until(now).unwrap_or(now) + late;
            sender.sent(now, 1000);
            assert_eq!(sender.bits == SLOT, anew);
        }
    }

    #[test]
    fn two_senders_that_are_told_the_same_come_to_the_same_rate() {
        let (mut one, mut other, mut now) = (Sender::new(0), Sender::new(0), 0);
        rate(&mut one, &mut 0, 300 * MS, 1000);
        let mut rates = (0, 0);
        for round in 0..600u64 {
            // A queue that both fill, and that empties in between.
            let ece = if round % 4 < 2 { 400 } else { 0 };
            one.told(now.max(300 * MS), ece);
            other.told(now.max(300 * MS), ece);
            let (mut here, mut there) = (now.max(300 * MS), now.max(300 * MS));
            rates = (rate(&mut one, &mut here, 5 * MS, 1000), rate(&mut other, &mut there, 5 * MS, 1000));
            now = here.max(there);
        }
        let (more, less) = (rates.0.max(rates.1), rates.0.min(rates.1));
        assert!(less * 2 > more, "{rates:?}");
    }

    #[test]
    fn what_is_told_counts_for_the_part_of_a_slot_in_which_it_is_the_case() {
        let limits = [0, 4, 8, 16].map(|part| {
            let (mut sender, slot) = (Sender::new(0), 1 << SLOT);
            sender.told(0, 1024);
            // As many packets as a slot should have, and all bytes that it may.
            for packet in 0..16u64 {
                if packet == part {
                    sender.told(packet * slot / 16, 0);
                }
                sender.sent(packet * slot / 16, FIRST as usize / 16);
            }
            sender.sent(slot, 0);
            sender.limit
        });
        let raised = FIRST + FIRST;
        let lowered = FIRST - FIRST / 8;
        assert_eq!(limits, [raised, raised - (raised - lowered) / 4, raised - (raised - lowered) / 2, lowered]);
    }

    proptest! {
        #[test]
        fn a_sender_always_goes_on_within_a_slot(steps in prop::collection::vec((0..50_000_000u64, 0..9000usize, any::<Option<u16>>()), 0..300)) {
            let (mut sender, mut now) = (Sender::new(0), 0);
            for (time, length, ece) in steps {
                now += time;
                ece.into_iter().for_each(|ece| sender.told(now, ece));
                now = sender.waits_until(now).unwrap_or(now);
                sender.sent(now, length);
                prop_assert!(sender.waits_until(now).is_none_or(|until| until <= now + (1 << SLOT)));
            }
        }
    }
}
