//! The way of datagrams out of a port: perfect, where a run stays a run, or a bad link.

use std::collections::VecDeque;

use ouroboros_stack::Outgoing;
use ouroboros_stack::link::{Counters, Impairment, Settings};

/// In front of each datagram on a bad link: the place of the port that it is for.
const TO: usize = 4;

/// Datagrams that arrive together.
#[derive(Debug)]
pub(crate) struct Flight {
    at: u64,
    /// The place of the port.
    pub(crate) to: u32,
    pub(crate) bytes: Vec<u8>,
    /// Bytes of each, but for a shorter last one.
    pub(crate) stride: usize,
}

#[derive(Debug)]
pub(crate) struct Link {
    delay: u64,
    perfect: VecDeque<Flight>,
    bad: Option<Impairment>,
    pub(crate) counters: Counters,
}

impl Link {
    pub(crate) fn new(delay: u64) -> Self {
        Link { delay, perfect: VecDeque::new(), bad: None, counters: Counters::default() }
    }

    /// From now on nothing is lost, and everything takes that long. Datagrams under way arrive as they were to.
    pub(crate) fn mend(&mut self, delay: u64) {
        self.delay = delay;
        if let Some(bad) = &mut self.bad {
            bad.set(Settings { delay, ..Settings::default() });
        }
    }

    /// From now on this happens to each datagram. One that is sent takes some time.
    pub(crate) fn impair(&mut self, settings: Settings, seed: u64) {
        let settings = Settings { delay: settings.delay.max(1), ..settings };
        match &mut self.bad {
            Some(bad) => bad.set(settings),
            None => self.bad = Some(Impairment::new(settings, seed)),
        }
    }

    /// Datagrams leave for the port at that place.
    pub(crate) fn send(&mut self, now: u64, to: u32, outgoing: &Outgoing<'_>) {
        let stride = outgoing.segment.unwrap_or(outgoing.bytes.len()).max(1);
        let Some(bad) = &mut self.bad else {
            let at = self.perfect.back().map_or(0, |last| last.at).max(now + self.delay.max(1));
            return self.perfect.push_back(Flight { at, to, bytes: outgoing.bytes.to_vec(), stride });
        };
        for datagram in outgoing.bytes.chunks(stride) {
            bad.offer(now, [&to.to_be_bytes()[..], datagram].concat(), &mut self.counters);
        }
    }

    /// Datagrams on their way.
    pub(crate) fn under_way(&self) -> u64 {
        let bad = self.bad.as_ref().map_or(0, Impairment::under_way);
        bad + self.perfect.iter().map(Flight::count).sum::<u64>()
    }

    /// When `due` has something.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let bad = self.bad.as_ref().and_then(Impairment::next_deadline);
        bad.into_iter().chain(self.perfect.front().map(|flight| flight.at)).min()
    }

    /// Datagrams that have arrived by now.
    pub(crate) fn due(&mut self, now: u64) -> Option<Flight> {
        if self.perfect.front().is_some_and(|flight| flight.at <= now) {
            let flight = self.perfect.pop_front();
            self.counters.delivered += flight.as_ref().map_or(0, Flight::count);
            return flight;
        }
        let packet = self.bad.as_mut()?.due(now)?;
        self.counters.delivered += 1;
        let (to, datagram) = packet.split_first_chunk::<TO>()?;
        let stride = datagram.len().max(1);
        Some(Flight { at: now, to: u32::from_be_bytes(*to), bytes: datagram.to_vec(), stride })
    }
}

impl Flight {
    /// Datagrams.
    pub(crate) fn count(&self) -> u64 {
        self.bytes.len().div_ceil(self.stride) as u64
    }
}
