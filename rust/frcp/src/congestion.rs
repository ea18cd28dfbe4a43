//! How much may be under way and how fast it goes: a model of the path by its delivery rate and its shortest round trip, as
//! in BBR, so that packets lost at random do not slow a flow down; and a bound learned from loss where buffers are small.
//!
//! Nothing grows without evidence: a flow that keeps little under way, because its program asks and waits for answers, has
//! shown nothing about what the path holds (as RFC 9438, 5.8, has it for windows). And whatever a path or a peer does, rates,
//! times and windows stay within `limits`.

use crate::limits::{MOST_RATE, MOST_RTT, MOST_WINDOW};

/// Rounds without growth of the delivery rate that end the start.
const FULL_ROUNDS: u32 = 3;
/// Gains in hundredths.
const START_GAIN: u64 = 277;
const DRAIN_GAIN: u64 = 36;
const WINDOW_GAIN: u64 = 200;
const UP: u64 = 125;
const DOWN: u64 = 75;
const LEVEL: u64 = 100;
/// Round trips of a cycle after the first two, which go up and down.
const LEVEL_TRIPS: u64 = 6;
/// A cycle takes at least this, ns, so that a maximum remembers more than a moment on a fast path.
const LEAST_CYCLE: u64 = 10_000_000;
/// A shortest round trip is believed that long, ns.
const RTT_AGE: u64 = 10_000_000_000;
/// To measure it anew the path is left half empty for this time, ns.
const PROBE_TIME: u64 = 50_000_000;
/// Below this, ns, a round trip is made of scheduling, not of a path.
const LEAST_RTT: u64 = 200_000;
/// Acknowledgements that come in lumps may be made up for by what the path carries in this time, ns.
const LUMP_TIME: u64 = 25_000_000;
/// Packets that may be under way at the beginning, and always.
const INITIAL: u64 = 32;
const LEAST: u64 = 4;
/// Bytes that a wake-up may send: so much time's worth, in bounds.
const QUANTUM_TIME: u64 = 1_000_000;
const QUANTUM: u64 = 48 << 10;
/// Loss that counts as random at most, and that is tolerated beyond it, in 1/1024.
const RANDOM: u64 = 61;
const TOLERANCE: u64 = 20;
/// Packets that tell enough of chance.
const ENOUGH: u64 = 16;
/// Rounds with little under way in a cycle, on a path where a bound was found.
const QUIET_ROUNDS: u32 = 2;
const SECOND: u64 = 1_000_000_000;

/// Snapshot of the path, taken when a packet was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stamp {
    delivered: u64,
    delivered_at: u64,
    first_sent: u64,
    limited: bool,
    /// Bytes under way, itself included.
    in_flight: u64,
}

/// The delivery rate as the last packet of an acknowledgement tells it.
#[derive(Debug, Clone, Copy)]
struct Sample {
    transmission: u64,
    stamp: Stamp,
    sent: u64,
}

/// A maximum over the present and the last period.
#[derive(Debug, Default)]
struct Maximum([u64; 2]);

impl Maximum {
    fn get(&self) -> u64 {
        self.0[0].max(self.0[1])
    }

    fn add(&mut self, value: u64) {
        self.0[1] = self.0[1].max(value);
    }

    fn turn(&mut self) {
        self.0 = [self.0[1], 0];
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Drain,
    Up,
    Down,
    Level,
    /// Until this time the path is left half empty; then comes Level.
    Empty {
        until: u64,
    },
}

/// A round is what is sent until an acknowledgement tells of something sent in it.
#[derive(Debug, Default)]
struct Round {
    ends: u64,
    delivered: u64,
    lost: u64,
    most_in_flight: u64,
    limited: bool,
}

/// The congestion controller of a flow.
#[derive(Debug)]
pub struct Controller {
    /// The cost of the longest packet, bytes.
    packet: u64,
    phase: Phase,
    phase_began: u64,
    cycle_began: u64,
    delivered: u64,
    delivered_at: u64,
    first_sent: u64,
    /// Until so much is delivered, samples tell of the program rather than of the path.
    limited_until: u64,
    sample: Option<Sample>,
    acked: u64,
    round: Round,
    bandwidth: Maximum,
    full: u64,
    full_rounds: u32,
    was_full: bool,
    min_rtt: Option<u64>,
    min_rtt_at: u64,
    lumps: Maximum,
    lump_began: u64,
    lump: u64,
    lump_rounds: u32,
    /// Bytes under way when loss set in; since then a bit more than were under way without loss.
    bound: Option<u64>,
    /// Loss that is there whatever is sent, in 1/1024 of packets.
    random: u64,
    /// Most that was under way in the last round.
    last_in_flight: u64,
    /// Rounds of this phase.
    phase_rounds: u32,
    /// An acknowledgement is long overdue.
    silent: bool,
    window: u64,
    rate: u64,
}

fn rate(bytes: u64, time: u64) -> u64 {
    let rate = u128::from(bytes) * u128::from(SECOND) / u128::from(time.max(1));
    u64::try_from(rate).unwrap_or(MOST_RATE).min(MOST_RATE)
}

fn amount(rate: u64, time: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(time) / u128::from(SECOND)).unwrap_or(u64::MAX)
}

/// Of rates and amounts of bytes within `limits`, and their products with times.
fn percent(value: u64, gain: u64) -> u64 {
    value * gain / 100
}

impl Controller {
    /// Knows nothing of the path. `packet`: what the longest packet costs.
    pub fn new(packet: u64, now: u64) -> Self {
        Controller {
            packet,
            phase: Phase::Start,
            phase_began: now,
            cycle_began: now,
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            limited_until: 0,
            sample: None,
            acked: 0,
            round: Round::default(),
            bandwidth: Maximum::default(),
            full: 0,
            full_rounds: 0,
            was_full: false,
            min_rtt: None,
            min_rtt_at: now,
            lumps: Maximum::default(),
            lump_began: now,
            lump: 0,
            lump_rounds: 0,
            bound: None,
            random: RANDOM,
            last_in_flight: 0,
            phase_rounds: 0,
            silent: false,
            window: INITIAL * packet,
            rate: 0,
        }
    }

    /// Bytes that may be under way.
    pub fn window(&self) -> u64 {
        if self.silent { LEAST * self.packet } else { self.window }
    }

    /// Bytes a second to send at; 0: as fast as the window allows.
    pub fn pacing_rate(&self) -> u64 {
        self.rate
    }

    /// The delivery rate that is believed possible, bytes a second.
    pub fn bandwidth(&self) -> u64 {
        self.bandwidth.get()
    }

    /// Bytes under way beyond which packets were lost; 0: it was never so.
    pub fn loss_bound(&self) -> u64 {
        self.bound.unwrap_or(0)
    }

    /// The shortest round trip lately.
    pub fn min_rtt(&self) -> Option<u64> {
        self.min_rtt
    }

    /// Bytes that were acknowledged.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// A packet is sent while so many bytes are under way.
    pub fn on_sent(&mut self, now: u64, cost: u64, in_flight: u64) -> Stamp {
        if in_flight == 0 {
            self.first_sent = now;
            self.delivered_at = now;
        }
        let in_flight = in_flight + cost;
        self.round.most_in_flight = self.round.most_in_flight.max(in_flight);
        Stamp {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            limited: self.limited_until > self.delivered,
            in_flight,
        }
    }

    /// The program, or the peer's window, had nothing for the path while it could have carried more.
    pub fn on_limited(&mut self, in_flight: u64) {
        self.limited_until = (self.delivered + in_flight).max(1);
    }

    /// A packet was acknowledged.
    pub fn on_delivered(&mut self, now: u64, stamp: Stamp, sent: u64, transmission: u64, cost: u64) {
        self.delivered += cost;
        self.delivered_at = now;
        self.acked += cost;
        self.round.delivered += 1;
        if self.sample.is_none_or(|sample| transmission > sample.transmission) {
            self.sample = Some(Sample { transmission, stamp, sent });
        }
    }

    /// A packet was taken for lost.
    pub fn on_lost(&mut self, stamp: Stamp) {
        self.round.lost += 1;
        self.round.most_in_flight = self.round.most_in_flight.max(stamp.in_flight);
    }

    /// Nothing came for so long that what was under way has to be taken for gone.
    pub fn on_silence(&mut self) {
        self.silent = true;
    }

    /// The packets of one acknowledgement were reported.
    pub fn on_ack(&mut self, now: u64, in_flight: u64, rtt: Option<u64>) {
        let acked = std::mem::take(&mut self.acked);
        let Some(sample) = self.sample.take() else { return };
        self.silent = false;
        self.first_sent = sample.sent;
        let overdue = self.measure_rtt(now, rtt);
        let new_round = sample.stamp.delivered >= self.round.ends;
        self.measure_rate(&sample);
        self.measure_lumps(now, acked);
        if new_round {
            self.end_round();
        }
        self.step(now, in_flight, overdue);
        self.decide();
    }

    /// True: the shortest round trip has to be measured anew.
    fn measure_rtt(&mut self, now: u64, rtt: Option<u64>) -> bool {
        let overdue = now.saturating_sub(self.min_rtt_at) > RTT_AGE;
        if let Some(rtt) = rtt
            && (overdue || self.min_rtt.is_none_or(|least| rtt <= least))
        {
            self.min_rtt = Some(rtt.clamp(1, MOST_RTT));
            self.min_rtt_at = now;
        }
        overdue
    }

    fn measure_rate(&mut self, sample: &Sample) {
        let sending = sample.sent.saturating_sub(sample.stamp.first_sent);
        let acking = self.delivered_at.saturating_sub(sample.stamp.delivered_at);
        let time = sending.max(acking);
        // A rate faster than a round trip is an illusion of acknowledgements in lumps.
        if time == 0 || self.min_rtt.is_some_and(|least| time < least) {
            return;
        }
        let rate = rate(self.delivered - sample.stamp.delivered, time);
        self.round.limited |= sample.stamp.limited;
        if !sample.stamp.limited || rate >= self.bandwidth.get() {
            self.bandwidth.add(rate);
        }
    }

    /// How much more than the rate explains is acknowledged at once: so much more has to be under way.
    fn measure_lumps(&mut self, now: u64, acked: u64) {
        let bandwidth = self.bandwidth.get();
        let expected = amount(bandwidth, now.saturating_sub(self.lump_began));
        if self.lump <= expected {
            self.lump_began = now;
            self.lump = 0;
        }
        self.lump += acked;
        let expected = amount(bandwidth, now.saturating_sub(self.lump_began));
        let most = amount(bandwidth, LUMP_TIME).min(self.window);
        self.lumps.add(self.lump.saturating_sub(expected).min(most));
    }

    fn end_round(&mut self) {
        self.phase_rounds += 1;
        self.judge_loss();
        self.judge_growth();
        self.lump_rounds += 1;
        if self.lump_rounds >= 5 {
            self.lump_rounds = 0;
            self.lumps.turn();
        }
        self.round = Round { ends: self.delivered, ..Round::default() };
    }

    /// More packets were lost in this round than chance explains: there is less room on the path than was under way.
    fn judge_loss(&mut self) {
        let Round { delivered, lost, most_in_flight, .. } = self.round;
        let sent = delivered + lost;
        let excess = lost.saturating_sub(sent * self.random / 1024);
        let quietly = self.is_quiet(most_in_flight) && self.is_quiet(self.last_in_flight);
        self.last_in_flight = most_in_flight;
        if quietly && sent >= ENOUGH {
            // With so little under way what is lost is lost by chance.
            self.random = ((self.random + lost * 1024 / sent) / 2).min(RANDOM);
        } else if excess > 2 + sent * (self.random + TOLERANCE) / 1024 {
            let target = percent(self.window.min(most_in_flight), 80);
            self.bound = Some(target.max(4 * LEAST * self.packet));
            self.was_full |= self.phase == Phase::Start;
        } else if let Some(bound) = self.bound
            && self.phase == Phase::Up
            && excess <= sent / 128
        {
            self.bound = Some(bound.max(self.beyond(bound.min(most_in_flight))));
        }
    }

    /// A step further than so much under way.
    fn beyond(&self, in_flight: u64) -> u64 {
        (in_flight + in_flight / 16 + self.packet).min(MOST_WINDOW)
    }

    fn is_quiet(&self, in_flight: u64) -> bool {
        self.bound.is_some_and(|bound| in_flight <= percent(bound, 75))
    }

    fn judge_growth(&mut self) {
        if self.was_full || self.round.limited {
            return;
        }
        let bandwidth = self.bandwidth.get();
        if bandwidth >= percent(self.full, 125) {
            self.full = bandwidth;
            self.full_rounds = 0;
            return;
        }
        self.full_rounds += 1;
        self.was_full = self.full_rounds >= FULL_ROUNDS;
    }

    /// Bytes that fit on the path itself.
    fn path(&self) -> u64 {
        amount(self.bandwidth.get(), self.min_rtt.unwrap_or(LEAST_RTT).max(LEAST_RTT))
    }

    fn enter(&mut self, now: u64, phase: Phase) {
        self.phase = phase;
        self.phase_began = now;
        self.phase_rounds = 0;
        if phase == Phase::Up {
            self.cycle_began = now;
            self.bandwidth.turn();
        }
    }

    /// The excess under way has left, or enough was seen of the path with little under way.
    fn has_settled(&self, in_flight: u64, late: bool) -> bool {
        match self.bound {
            Some(_) => self.phase_rounds > QUIET_ROUNDS,
            None => late || in_flight <= self.path(),
        }
    }

    fn step(&mut self, now: u64, in_flight: u64, overdue: bool) {
        let trip = self.min_rtt.unwrap_or(LEAST_RTT).max(LEAST_RTT);
        let elapsed = now.saturating_sub(self.phase_began);
        match self.phase {
            Phase::Start if self.was_full => self.enter(now, Phase::Drain),
            Phase::Drain if in_flight <= self.path() || elapsed > 4 * trip => self.enter(now, Phase::Level),
            Phase::Up if elapsed >= trip && (in_flight >= percent(self.path(), UP) || elapsed >= 3 * trip) => {
                self.enter(now, Phase::Down);
            }
            Phase::Down if self.has_settled(in_flight, elapsed >= trip) => self.enter(now, Phase::Level),
            Phase::Level if elapsed >= LEVEL_TRIPS * trip && now - self.cycle_began.min(now) >= LEAST_CYCLE => {
                self.enter(now, Phase::Up);
            }
            Phase::Empty { until } if now >= until => self.enter(now, Phase::Level),
            _ => {}
        }
        if overdue && self.was_full && !matches!(self.phase, Phase::Empty { .. }) {
            let until = now.saturating_add(PROBE_TIME.max(2 * trip));
            self.min_rtt_at = now;
            self.enter(now, Phase::Empty { until });
        }
    }

    fn decide(&mut self) {
        let bandwidth = self.bandwidth.get();
        if bandwidth == 0 {
            return;
        }
        let (pace, gain) = match self.phase {
            Phase::Start => (START_GAIN, START_GAIN),
            Phase::Drain => (DRAIN_GAIN, START_GAIN),
            Phase::Up => (UP, WINDOW_GAIN),
            Phase::Down => (DOWN, WINDOW_GAIN),
            Phase::Level => (LEVEL, WINDOW_GAIN),
            Phase::Empty { .. } => (LEVEL, 50),
        };
        let quantum = amount(bandwidth, QUANTUM_TIME).clamp(2 * self.packet, QUANTUM.max(2 * self.packet));
        let mut window = percent(self.path(), gain) + 2 * quantum;
        if self.was_full {
            window += self.lumps.get();
        } else {
            window = window.max(INITIAL * self.packet);
        }
        if let Some(bound) = self.bound {
            window = window.min(if self.phase == Phase::Down { percent(bound, 70) } else { bound });
        }
        self.window = window.min(MOST_WINDOW).max(LEAST * self.packet);
        self.rate = percent(bandwidth, pace).clamp(self.packet, MOST_RATE);
        if self.phase == Phase::Start {
            // The first samples are short: what the initial window tells must not slow down.
            self.rate = self.rate.max(rate(self.window, self.min_rtt.unwrap_or(LEAST_RTT).max(LEAST_RTT)));
        }
    }
}
