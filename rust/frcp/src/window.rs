//! How much the peer takes, and asking for more.

use crate::quirks::Quirks;
use crate::seq::{ahead, before, rebuild};

/// Packets that are sent to a receiver whose window shrank to nothing, once it has answered so often.
const ANSWERS: u32 = 3;
const OPENED_BY_ANSWER: u32 = 32;

/// The peer's receive window.
#[derive(Debug)]
pub struct Window {
    /// The first number that may not be sent.
    edge: u32,
    /// Packets that the peer takes beyond what it has at most.
    most: u32,
    quirks: &'static Quirks,
    reliable: bool,
    /// When to ask again, and how long after that.
    ask_at: Option<u64>,
    pause: u64,
    /// Answers that told nothing new, since the edge last moved.
    answers: u32,
    asked: bool,
}

impl Window {
    /// The peer takes `initial` packets from the first number on before it has said anything.
    pub fn new(first: u32, initial: u32, most: u32, quirks: &'static Quirks, reliable: bool) -> Self {
        Window {
            edge: first.wrapping_add(initial.min(most)),
            most,
            quirks,
            reliable,
            ask_at: None,
            pause: 0,
            answers: 0,
            asked: false,
        }
    }

    /// Packets that may be sent from `next` on, while `first` is the oldest that the peer may not have.
    pub fn room(&self, first: u32, next: u32) -> u32 {
        ahead(next, self.edge).min(ahead(next, first.wrapping_add(self.most)))
    }

    /// After a pause such a peer takes no more than its first window, until it tells of more.
    pub fn rest_long(&mut self, next: u32) {
        if self.quirks.rests && ahead(next, self.edge) > self.quirks.initial_window {
            self.edge = next.wrapping_add(self.quirks.initial_window);
        }
    }

    /// The peer told an edge.
    pub fn update(&mut self, field: u32, next: u32) {
        let edge = rebuild(self.edge, field);
        if before(self.edge, edge) && ahead(next, edge) <= self.quirks.farthest_edge {
            self.edge = edge;
            self.opened();
        } else if std::mem::take(&mut self.asked) && self.quirks.shrinks && !before(next, self.edge) {
            self.doubt(next);
        }
    }

    /// The window of such a receiver shrinks by every packet that is lost. It answers only once it has read all that came: if
    /// it says the same again and again, it takes more nevertheless.
    fn doubt(&mut self, next: u32) {
        self.answers += 1;
        if self.answers >= ANSWERS {
            self.edge = next.wrapping_add(OPENED_BY_ANSWER);
            self.opened();
        }
    }

    fn opened(&mut self) {
        self.ask_at = None;
        self.pause = 0;
        self.answers = 0;
        self.asked = false;
    }

    /// Data waits for the window, or soon will if the peer does not speak unasked.
    pub fn wants_answer(&self, first: u32, next: u32) -> bool {
        self.room(first, next) <= self.quirks.ask_room
    }

    /// There is data to send: when to ask.
    pub fn watch(&mut self, now: u64, first: u32, next: u32) {
        if !self.wants_answer(first, next) {
            self.ask_at = None;
            return;
        }
        // Only the peer's window is asked about; what it has not acknowledged is waited for.
        if before(next, self.edge) && self.reliable {
            self.ask_at = None;
            return;
        }
        if self.ask_at.is_none() {
            self.ask_at = Some(now.saturating_add(self.quirks.ask_after));
        }
    }

    /// A question is due; it is asked now.
    pub fn ask(&mut self, now: u64) -> bool {
        if self.ask_at.is_none_or(|at| now < at) {
            return false;
        }
        self.pause = (self.pause * 2).clamp(self.quirks.least_pause, self.quirks.most_pause);
        self.ask_at = Some(now.saturating_add(self.pause));
        self.asked = true;
        true
    }

    /// When a question is due.
    pub fn deadline(&self) -> Option<u64> {
        self.ask_at
    }

    /// There is nothing to send: no questions.
    pub fn rest(&mut self) {
        self.ask_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quirks::{OWN, PROTOTYPE, PROTOTYPE_UNRELIABLE};

    #[test]
    fn the_edge_never_goes_back() {
        let mut window = Window::new(1000, 64, 256, &PROTOTYPE, true);
        assert_eq!(window.room(1000, 1000), 64);
        window.update(1200, 1010);
        assert_eq!(window.room(1010, 1010), 190);
        window.update(1195, 1010);
        assert_eq!(window.room(1010, 1010), 190);
    }

    #[test]
    fn after_a_pause_a_peer_of_ours_takes_its_first_window_and_never_more_than_it_said() {
        for (quirks, edge, room) in [(&OWN, 400, 64), (&OWN, 130, 30), (&PROTOTYPE, 200, 100)] {
            let mut window = Window::new(0, 64, quirks.farthest_edge, quirks, true);
            window.update(edge, 100);
            window.rest_long(100);
            assert_eq!(window.room(100, 100), room);
            window.update(edge + 10, 101);
            assert_eq!(window.room(101, 101), edge + 10 - 101);
        }
    }

    #[test]
    fn an_edge_beyond_what_a_peer_takes_is_ignored() {
        let mut window = Window::new(1000, 64, 256, &PROTOTYPE, true);
        for field in [0, 1000 + 257, 5_000_000] {
            window.update(field, 1000);
            assert_eq!(window.room(1000, 1000), 64);
        }
    }

    /// The prototype may advertise more than its queue takes after what it has acknowledged.
    #[test]
    fn no_more_than_the_queue_of_the_peer_is_under_way() {
        let mut window = Window::new(0, 64, 256, &PROTOTYPE, true);
        (0..10).for_each(|n| window.update(n * 100, n * 100));
        assert_eq!(window.room(700, 900), 0);
        assert_eq!(window.room(700, 956), 0);
        assert_eq!(window.room(850, 890), 10);
    }

    #[test]
    fn a_closed_window_is_asked_about_less_and_less() {
        let mut window = Window::new(0, 64, 256, &PROTOTYPE, true);
        let mut now = 0;
        let mut asked = vec![];
        while now < 60_000_000_000 {
            window.watch(now, 64, 64);
            if window.ask(now) {
                asked.push(now);
            }
            now = window.deadline().unwrap_or(u64::MAX);
        }
        assert!(asked.len() < 20, "{asked:?}");
        window.update(65, 64);
        assert_eq!(window.room(64, 64), 1);
    }

    /// Every packet that such a receiver loses shrinks its window for good (its answer repeats the old edge).
    #[test]
    fn an_answer_opens_a_window_of_mode_u_that_shrank_to_nothing() {
        let mut window = Window::new(0, 64, 256, &PROTOTYPE_UNRELIABLE, false);
        window.update(64, 64);
        assert_eq!(window.room(64, 64), 0);
        window.watch(5, 64, 64);
        for answer in 1..=ANSWERS {
            assert!(window.ask(u64::from(answer) * 1_000_000_000));
            assert_eq!(window.room(64, 64), 0);
            window.update(64, 64);
        }
        assert_eq!(window.room(64, 64), OPENED_BY_ANSWER);
    }
}
