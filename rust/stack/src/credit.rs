//! Back-pressure for raw flows between nodes of ours: the receiving node says how many packets came, the sending one has no
//! more than a window of them under way, so that neither kernel buffer runs over. Pure.
//!
//! Packets carry no numbers, so lost ones are found by age: a packet that is not reported after a few round trips is gone. If
//! it comes all the same, a host on the way had no processor for a while, and what followed from the loss is undone. A
//! receiver whose program reads too slowly says so, and then no packet is taken for lost until it says otherwise.

use std::collections::VecDeque;

use ouroboros_wire::management::Report;

const MILLISECOND: u64 = 1_000_000;
/// Packets under way at first, and at the least.
const FIRST: u64 = 64;
/// ... at the most.
pub(crate) const MOST: u64 = 4096;
/// The receiver reports after so many packets at the latest: a quarter of the smallest window.
pub(crate) const REPORT: u64 = FIRST / 4;
/// A packet that is not reported for this long is lost, if the round trip is shorter than a quarter of it.
const AGE: u64 = 5 * MILLISECOND;
/// ... and for this long while no round trip is known. It may be longer, so that nothing follows from such a loss.
const UNKNOWN: u64 = 100 * MILLISECOND;
/// So many that were lost may make a round trip seem longer.
const FEW: usize = 8;
/// So long after a loss the window may grow again; and so long a receiver may say nothing after it said to wait.
const PROBE: u64 = 1000 * MILLISECOND;
/// Bytes that a packet takes of the receiver's kernel buffer, at least, and beside two and a half times its own length.
const OVERHEAD: u64 = 1664;

const NEVER: u64 = u64::MAX;

/// What followed from packets that were taken for lost.
#[derive(Debug)]
struct Cut {
    /// As they were before.
    window: u64,
    cap: u64,
    /// How many have not come yet, and when the last of them was sent.
    missing: u64,
    sent_at: u64,
}

/// The sending side of one flow.
#[derive(Debug)]
pub(crate) struct Credit {
    sent: u64,
    /// Packets that the receiver reported.
    counted: u64,
    /// Packets that it will never report.
    lost: u64,
    window: u64,
    /// The window may not grow beyond it.
    cap: u64,
    most: u64,
    cap_at: u64,
    cut: Option<Box<Cut>>,
    /// Packets may be under way for so long, as some came that were taken for lost; and when they did.
    slack: u64,
    slack_at: u64,
    /// When the window was used up first since the last report.
    shut_at: u64,
    /// Bytes that may be under way: when the receiver says to wait, half of its program's ring is free, and all packets under
    /// way still have to fit there. No bound if it has no ring.
    ring: u64,
    /// Bytes of the kernel buffer, as the receiver said last.
    room: u64,
    /// Since when it wants us to wait.
    wait: Option<u64>,
    /// Length of the last packet, and how many of them the receiver has room for.
    length: u64,
    fits: u64,
    /// When how much had been sent: the beginning of a quarter of a millisecond, and the packets up to its end.
    marks: VecDeque<(u64, u64)>,
    round_trip: u64,
    round_trip_at: u64,
}

impl Credit {
    /// `ring`: bytes in the ring of the receiver's program; None: the receiver hands everything on at once. `most`: packets
    /// under way.
    pub(crate) fn new(ring: Option<usize>, most: u64) -> Self {
        let mut credit = Credit {
            ring: ring.map_or(u64::MAX, |capacity| capacity as u64 / 4),
            sent: 0,
            counted: 0,
            lost: 0,
            window: FIRST,
            cap: most,
            most,
            cap_at: 0,
            cut: None,
            slack: 0,
            slack_at: 0,
            shut_at: NEVER,
            room: FIRST * OVERHEAD,
            wait: None,
            length: 0,
            fits: 0,
            marks: VecDeque::new(),
            round_trip: 0,
            round_trip_at: 0,
        };
        credit.measure();
        credit
    }

    /// Time has passed.
    pub(crate) fn pass(&mut self, now: u64) {
        self.stop_waiting(now);
        self.age(now);
    }

    fn stop_waiting(&mut self, now: u64) {
        if self.wait.is_some_and(|since| now >= since + PROBE) {
            self.wait = None;
        }
    }

    /// Whether one more packet may be sent.
    #[inline]
    pub(crate) fn may_send(&mut self, now: u64) -> bool {
        self.stop_waiting(now);
        if !self.is_open() {
            self.age(now);
        }
        let may = self.is_open();
        if !may {
            self.shut_at = self.shut_at.min(now);
        }
        may
    }

    /// Whether the receiver says something of what was sent to it. A window that is used up says nothing about it, until it
    /// was silent for long.
    pub(crate) fn is_answered(&self, now: u64) -> bool {
        now < self.shut_at.saturating_add(UNKNOWN.max(4 * self.round_trip))
    }

    /// Whether so many packets more may be sent.
    pub(crate) fn may_send_all(&mut self, now: u64, count: u64) -> bool {
        self.may_send(now) && self.sent - self.settled() + count <= self.window.min(self.fits)
    }

    /// A packet was sent.
    #[inline]
    pub(crate) fn sent(&mut self, now: u64, length: usize) {
        self.sent_all(now, length, 1);
    }

    /// So many packets were sent.
    #[inline]
    pub(crate) fn sent_all(&mut self, now: u64, length: usize, count: u64) {
        self.sent += count;
        if self.length != length as u64 {
            self.length = length as u64;
            self.measure();
        }
        match self.marks.back_mut().filter(|(at, _)| now - *at < MILLISECOND / 4) {
            Some((_, sent)) => *sent = self.sent,
            None => self.marks.push_back((now, self.sent)),
        }
    }

    /// A report arrived.
    pub(crate) fn report(&mut self, now: u64, report: Report) {
        let Report { counted, room, wait, .. } = report;
        if counted < self.counted || counted > self.sent {
            return;
        }
        (self.counted, self.room, self.wait) = (counted, u64::from(room), wait.then_some(now));
        self.measure();
        self.note_late(now, self.lost.saturating_sub(self.sent - counted));
        self.lost = if self.round_trip == 0 { 0 } else { self.lost.min(self.sent - counted) };
        let mut settled = None;
        // What was not reported for long may have arrived all the same, and be in the report after this one.
        let sure = counted + self.lost.saturating_sub(REPORT - 1);
        while let Some((at, _)) = self.marks.front().copied().filter(|(_, sent)| *sent <= sure) {
            settled = Some(at);
            self.marks.pop_front();
        }
        settled.into_iter().for_each(|at| self.sample(now, at));
        self.age(now);
        if now - self.cap_at > PROBE {
            (self.cap, self.cap_at, self.cut) = ((self.cap + self.cap / 8).min(self.most), now, None);
        }
        if now - self.slack_at > 10 * PROBE {
            self.slack = 0;
        }
        if std::mem::replace(&mut self.shut_at, NEVER) != NEVER {
            // Reports come four times in a window: this doubles it in a round trip.
            self.window = (self.window + self.window / 4).min(self.cap);
        }
    }

    /// So many came that were taken for lost.
    fn note_late(&mut self, now: u64, late: u64) {
        let Some(cut) = &mut self.cut else { return };
        cut.missing = cut.missing.saturating_sub(late);
        if cut.missing < REPORT {
            (self.window, self.cap) = (self.window.max(cut.window), self.cap.max(cut.cap));
            (self.slack, self.slack_at) = (self.slack.max((2 * (now - cut.sent_at)).min(UNKNOWN)), now);
            self.cut = None;
        }
    }

    /// When more may be sent though no report comes; None while nothing waits for it.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let marked = self.marks.front().filter(|_| self.shut_at != NEVER).map(|(at, _)| at + self.patience());
        self.wait.map(|since| since + PROBE).or(marked)
    }

    fn settled(&self) -> u64 {
        self.counted + self.lost
    }

    /// The shortest of a while: behind a lost packet the others seem to take long. `sent`: when the last one was sent of those
    /// that were reported, or one of the next, if some of them were lost.
    fn sample(&mut self, now: u64, sent: u64) {
        let round_trip = now - sent;
        let next = self.marks.get(FEW - 1).or(self.marks.back()).map_or(0, |(at, _)| at.saturating_sub(sent));
        // Where packets are rare, one that was lost would make it as long as the time between them.
        let sure = next <= AGE.max(round_trip / 2);
        let old = self.round_trip == 0 || now - self.round_trip_at > 10 * PROBE;
        if round_trip < self.round_trip || old && sure {
            (self.round_trip, self.round_trip_at) = (round_trip, now);
        }
    }

    fn measure(&mut self) {
        let kernel = (self.room / OVERHEAD).min(self.room * 2 / 5 / self.length.max(1));
        self.fits = kernel.min(self.ring / (self.length + 16)).max(REPORT);
    }

    fn is_open(&self) -> bool {
        self.wait.is_none() && self.sent - self.settled() < self.window.min(self.fits)
    }

    fn patience(&self) -> u64 {
        if self.round_trip == 0 { UNKNOWN } else { AGE.max(4 * self.round_trip).max(self.slack) }
    }

    fn age(&mut self, now: u64) {
        let (mut sent_at, mut gone) = (0, 0);
        while let Some((at, sent)) = self.marks.front().copied().filter(|(at, _)| now >= at + self.patience()) {
            (sent_at, gone) = (at, sent);
            self.marks.pop_front();
        }
        let missing = gone.saturating_sub(self.settled());
        self.lost += missing;
        // A few are lost on any bad path, and some are not reported yet; many are too many for the receiver.
        if self.round_trip > 0 && missing.saturating_sub(REPORT - 1) > self.window / 8 {
            let cut = self
                .cut
                .get_or_insert_with(|| Box::new(Cut { window: self.window, cap: self.cap, missing: 0, sent_at }));
            (cut.missing, cut.sent_at) = (cut.missing + missing, sent_at);
            self.cap = (self.window * 3 / 4).max(FIRST);
            self.cap_at = now;
            self.window = (self.window / 2).max(FIRST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1000;

    fn report(counted: u64) -> Report {
        Report { source: 1, destination: 2, counted, room: 8 << 20, wait: false }
    }

    /// A packet a second, of which one is lost now and then; and then many at once.
    #[test]
    fn rare_packets_that_are_lost_do_not_make_round_trips_of_seconds() {
        let (mut credit, mut now, mut arrived) = (Credit::new(None, MOST), 0, 0);
        for number in 1..200u64 {
            now += 1000 * MILLISECOND;
            assert!(credit.may_send(now));
            credit.sent(now, 100);
            arrived += u64::from(number % 20 > 0);
            if arrived % REPORT == 0 && number % 20 > 0 {
                credit.report(now + MILLISECOND, report(arrived));
            }
        }
        assert!(credit.patience() <= AGE, "{}", credit.patience());
        assert!(fill(&mut credit, now + 500 * MILLISECOND) > 0);
        assert!(fill(&mut credit, now + 510 * MILLISECOND) >= FIRST / 2);
    }

    fn fill(credit: &mut Credit, now: u64) -> u64 {
        let mut sent = 0;
        while credit.may_send(now) {
            credit.sent(now, 64);
            sent += 1;
        }
        sent
    }

    /// Packets that are written in such bursts, each a second after the one before, and then as fast as they may; of so many
    /// one is lost on a way that takes `half` in either direction. Returns how many were under way in the end.
    fn under_way(bursts: &[u64], loss: u64, half: u64) -> u64 {
        let (mut credit, mut now, mut arrived, mut told) = (Credit::new(None, MOST), 0, 0, 0);
        let (mut there, mut back) = (VecDeque::new(), VecDeque::new());
        let streams = bursts.len() as u64 * 1000 * MILLISECOND;
        while now < streams + 2000 * MILLISECOND {
            while there.front().is_some_and(|at| at + half <= now) {
                there.pop_front();
                arrived += 1;
                if arrived - told >= REPORT {
                    told = arrived;
                    back.push_back((now, told));
                }
            }
            while let Some((_, counted)) = back.front().copied().filter(|(at, _)| at + half <= now) {
                back.pop_front();
                credit.report(now, report(counted));
            }
            let burst = (now % (1000 * MILLISECOND) == 0).then(|| bursts.get((now / MILLISECOND / 1000) as usize));
            let mut left = if now < streams { burst.flatten().copied().unwrap_or(0) } else { u64::MAX };
            while left > 0 && credit.may_send(now) {
                credit.sent(now, 1400);
                left -= 1;
                if loss == 0 || credit.sent % loss > 0 {
                    there.push_back(now);
                }
            }
            now += MILLISECOND / 4;
        }
        credit.sent - credit.settled()
    }

    /// The receiver has counted up to fifteen that it has not told yet, for as long as no more come.
    #[test]
    fn what_is_not_reported_yet_is_not_taken_for_a_loss_of_many() {
        let fits = (8 << 20) * 2 / 5 / 1400;
        for bursts in [&[][..], &[15], &[9], &[20], &[15, 15, 15], &[40, 3, 30]] {
            for (loss, half) in [(0, 5), (100, 5), (0, 40), (0, 75)] {
                let found = under_way(bursts, loss, half * MILLISECOND);
                assert!(found > fits / 2, "{bursts:?} {loss} {half}: {found}");
            }
        }
    }

    #[test]
    fn a_window_and_no_more_is_under_way() {
        let mut credit = Credit::new(Some(2 << 20), MOST);
        assert_eq!(fill(&mut credit, 0), FIRST);
        credit.report(100 * US, report(REPORT));
        // As many as were reported, and a quarter more because they were wanted.
        assert_eq!(fill(&mut credit, 100 * US), REPORT + FIRST / 4);
    }

    #[test]
    fn silence_frees_the_window_after_a_while() {
        let mut credit = Credit::new(Some(2 << 20), MOST);
        fill(&mut credit, 0);
        let deadline = credit.deadline().unwrap_or_default();
        assert!(!credit.may_send(deadline - 1));
        assert_eq!(fill(&mut credit, deadline), FIRST);
    }

    #[test]
    fn a_deadline_that_passed_is_over_though_nothing_is_sent() {
        let mut credit = Credit::new(None, MOST);
        fill(&mut credit, 0);
        let deadline = credit.deadline().unwrap_or_default();
        credit.pass(deadline);
        assert_eq!(credit.deadline(), None);
        credit.report(deadline, Report { wait: true, ..report(REPORT) });
        let deadline = credit.deadline().unwrap_or_default();
        assert!(deadline > PROBE);
        credit.pass(deadline);
        assert_eq!(credit.deadline(), None);
    }

    #[test]
    fn lost_packets_do_not_narrow_the_window_for_good() {
        let mut credit = Credit::new(Some(2 << 20), MOST);
        let (mut now, mut arrived, mut least) = (0, 0, u64::MAX);
        for round in 0..2000u64 {
            let sent = fill(&mut credit, now);
            if round > 1000 {
                least = least.min(sent);
            }
            // One in a hundred is lost.
            arrived += sent - sent.div_ceil(100);
            now += 2 * MILLISECOND;
            credit.report(now, report(arrived));
        }
        assert!(least >= 8, "{least}");
        assert!(credit.sent > 2000 * FIRST / 4, "{credit:?}");
    }

    #[test]
    fn a_host_that_stands_still_for_a_moment_does_not_narrow_the_window() {
        let (mut credit, mut now) = (Credit::new(None, MOST), 0);
        let mut go = |credit: &mut Credit, stall: u64, lost: u64| {
            let sent = fill(credit, now);
            now += stall;
            credit.pass(now);
            fill(credit, now);
            now += MILLISECOND / 2;
            credit.report(now, report(credit.sent - lost));
            sent
        };
        while go(&mut credit, MILLISECOND / 2, 0) < 1000 {}
        let wide = credit.window;
        go(&mut credit, 12 * MILLISECOND, 0);
        assert!(credit.slack > 12 * MILLISECOND && credit.window >= wide, "{credit:?}");
        // The next time it is known.
        go(&mut credit, 12 * MILLISECOND, 0);
        assert!(credit.lost == 0 && credit.window >= wide, "{credit:?}");
        // Those that do not come are lost.
        let wide = credit.window;
        go(&mut credit, 120 * MILLISECOND, 900);
        assert!(credit.lost == 900 && credit.window < wide, "{credit:?}");
    }

    #[test]
    fn a_receiver_that_says_to_wait_is_waited_for() {
        let mut credit = Credit::new(Some(2 << 20), MOST);
        fill(&mut credit, 0);
        credit.report(1, Report { wait: true, ..report(REPORT) });
        fill(&mut credit, 1);
        assert!(!credit.may_send(PROBE / 2));
        assert!(credit.may_send(2 * PROBE));
    }

    #[test]
    fn what_is_under_way_fits_into_the_buffer_of_the_receiver() {
        let mut credit = Credit::new(Some(2 << 20), MOST);
        let room: u32 = 212_992;
        for round in 1..100 {
            while credit.may_send(round * MILLISECOND) {
                credit.sent(round * MILLISECOND, 1400);
                assert!((credit.sent - credit.settled()) * 1400 <= u64::from(room) / 2);
            }
            credit.report(round * MILLISECOND, Report { room, ..report(credit.sent) });
        }
    }

    #[test]
    fn reports_of_a_liar_change_nothing() {
        let mut credit = Credit::new(Some(2 << 20), MOST);
        fill(&mut credit, 0);
        credit.report(1, report(u64::MAX));
        credit.report(1, report(FIRST + 1));
        assert!(!credit.may_send(1));
        credit.report(1, report(FIRST));
        credit.report(2, report(3));
        assert_eq!(credit.sent - credit.settled(), 0);
    }
}
