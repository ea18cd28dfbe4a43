//! Laws of the model of a bad link, for any settings, packets and times.
#![allow(clippy::unwrap_used)]

use ouroboros_io::impair::{Chance, Counters, HOLD, IN_FLIGHT, Impairment, PACKETS, QUEUE, Settings, seed_of};
use proptest::prelude::*;

const MS: u64 = 1_000_000;

/// A packet: time since the one before, and length.
type Sent = (u64, usize);

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// When which packet arrived.
    arrived: Vec<(u64, Vec<u8>)>,
    counters: Counters,
}

impl Outcome {
    /// The numbers of the packets, in the order in which they arrived.
    fn numbers(&self) -> Vec<u32> {
        self.arrived.iter().map(|(_, packet)| u32::from_be_bytes(packet[..4].try_into().unwrap())).collect()
    }
}

/// A packet that says which one it is.
fn packet(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = u32::try_from(number).unwrap().to_be_bytes().to_vec();
    bytes.resize(length.max(4), 0);
    bytes
}

/// Send packets and take out what arrives, each at its time.
fn run(settings: Settings, seed: u64, sent: &[Sent]) -> Outcome {
    let mut link = Impairment::new(settings, seed);
    let (mut outcome, mut now) = (Outcome::default(), 0);
    for (number, (gap, length)) in sent.iter().enumerate() {
        now += gap;
        take(&mut link, now, &mut outcome);
        link.offer(now, packet(number, *length), &mut outcome.counters);
    }
    take(&mut link, u64::MAX, &mut outcome);
    assert_eq!(link.next_deadline(), None);
    outcome
}

fn take(link: &mut Impairment, until: u64, outcome: &mut Outcome) {
    while let Some(at) = link.next_deadline().filter(|at| *at <= until) {
        assert_eq!(at.checked_sub(1).and_then(|before| link.due(before)), None);
        while let Some(packet) = link.due(at) {
            outcome.arrived.push((at, packet));
        }
    }
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0].prop_map(|probability| Chance::new(probability).unwrap())
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..50 * MS]
}

prop_compose! {
    fn settings()(
        loss in chance(), duplicate in chance(), reorder in chance(), delay in time(), jitter in time(),
        rate in prop_oneof![Just(0), 10_000u64..100_000_000], partition in prop::bool::weighted(0.1),
    ) -> Settings {
        Settings { loss, duplicate, reorder, delay, jitter, rate, partition }
    }
}

fn packets() -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec((prop_oneof![2 => Just(0), 3 => 0..30 * MS], 4usize..2000), 0..60)
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

fn all(sent: &[Sent]) -> Vec<u32> {
    (0..u32::try_from(sent.len()).unwrap()).collect()
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_result(settings in settings(), seed: u64, sent in packets()) {
        prop_assert_eq!(run(settings, seed, &sent), run(settings, seed, &sent));
    }

    #[test]
    fn every_packet_arrives_or_is_counted(settings in settings(), seed: u64, sent in packets()) {
        let outcome = run(settings, seed, &sent);
        let Counters { lost, duplicated, .. } = outcome.counters;
        prop_assert_eq!(outcome.arrived.len() as u64 + lost, sent.len() as u64 + duplicated);
    }

    #[test]
    fn without_loss_and_duplication_each_arrives_once(settings in settings(), seed: u64, sent in packets()) {
        let none = Chance::default();
        let settings = Settings { loss: none, duplicate: none, rate: 0, partition: false, ..settings };
        let outcome = run(settings, seed, &sent);
        prop_assert_eq!(sorted(outcome.numbers()), all(&sent));
    }

    #[test]
    fn only_reordering_changes_the_order(settings in settings(), seed: u64, sent in packets()) {
        let outcome = run(Settings { reorder: Chance::default(), ..settings }, seed, &sent);
        prop_assert_eq!(outcome.numbers(), sorted(outcome.numbers()));
        prop_assert_eq!(outcome.counters.reordered, 0);
    }

    #[test]
    fn as_many_are_counted_as_overtaken_as_are(settings in settings(), seed: u64, sent in packets()) {
        let settings = Settings { duplicate: Chance::default(), ..settings };
        let outcome = run(settings, seed, &sent);
        let overtaken = outcome.numbers().windows(2).filter(|pair| pair[0] > pair[1]).count();
        prop_assert_eq!(outcome.counters.reordered, overtaken as u64);
    }

    #[test]
    fn nothing_arrives_before_its_delay_nor_much_later(settings in settings(), seed: u64, sent in packets()) {
        let settings = Settings { rate: 0, ..settings };
        let outcome = run(settings, seed, &sent);
        let times: Vec<u64> = sent.iter().scan(0, |now, (gap, _)| { *now += gap; Some(*now) }).collect();
        for ((at, _), number) in outcome.arrived.iter().zip(outcome.numbers()) {
            let took = at - times[number as usize];
            prop_assert!(took >= settings.delay);
            // Behind one with more jitter, or held back.
            prop_assert!(took <= settings.delay + settings.jitter + HOLD);
        }
    }

    #[test]
    fn the_rate_is_kept(settings in settings(), rate in 10_000u64..100_000_000, seed: u64, sent in packets()) {
        let settings = Settings { rate, jitter: 0, reorder: Chance::default(), ..settings };
        let outcome = run(settings, seed, &sent);
        for pair in outcome.arrived.windows(2) {
            let [(before, _), (at, packet)] = pair else { unreachable!() };
            let needed = u128::from(at - before) * u128::from(rate);
            prop_assert!(needed >= packet.len() as u128 * 8 * 1_000_000_000);
        }
    }

    #[test]
    fn a_partition_lets_nothing_through(settings in settings(), seed: u64, sent in packets()) {
        let outcome = run(Settings { partition: true, ..settings }, seed, &sent);
        prop_assert!(outcome.arrived.is_empty());
        prop_assert_eq!(outcome.counters.lost, sent.len() as u64);
    }

    #[test]
    fn which_packets_are_lost_depends_on_the_seed_alone(
        one in settings(), other in settings(), loss in chance(), seed: u64, gaps in packets(),
    ) {
        let lost = |settings: Settings, sent: &[Sent]| {
            let settings = Settings { loss, rate: 0, partition: false, ..settings };
            let mut arrived = run(settings, seed, sent).numbers();
            arrived.sort_unstable();
            arrived.dedup();
            arrived
        };
        let at_once: Vec<Sent> = gaps.iter().map(|_| (0, 4)).collect();
        prop_assert_eq!(lost(one, &gaps), lost(other, &at_once));
    }
}

fn chances(loss: f64) -> Settings {
    Settings { loss: Chance::new(loss).unwrap(), ..Settings::default() }
}

#[test]
fn as_many_are_lost_as_were_to_be() {
    for seed in 0..20 {
        let lost = run(chances(0.1), seed, &vec![(0, 4); 20_000]).counters.lost;
        // Ten standard deviations on either side.
        assert!((1576..=2424).contains(&lost), "{lost}");
    }
}

#[test]
fn flows_and_directions_of_a_layer_differ() {
    let lost = |flow, direction| run(chances(0.5), seed_of(42, flow, direction), &vec![(0, 4); 64]).numbers();
    assert_ne!(lost(1, 0), lost(1, 1));
    assert_ne!(lost(1, 0), lost(2, 0));
    assert_eq!(lost(1, 0), lost(1, 0));
}

#[test]
fn the_queue_of_a_slow_link_is_bounded() {
    let outcome = run(Settings { rate: 8_000, ..Settings::default() }, 0, &vec![(0, 1024); 1000]);
    // The one that is being sent is not in the queue.
    assert_eq!(outcome.arrived.len(), QUEUE / 1024 + 1);
}

#[test]
fn what_is_under_way_is_bounded() {
    let packets = vec![(0, 1 << 20); 20];
    let outcome = run(Settings { delay: 1, ..Settings::default() }, 0, &packets);
    assert_eq!(outcome.arrived.len(), IN_FLIGHT >> 20);
    assert_eq!(outcome.counters.lost, 4);
}

#[test]
fn packets_without_bytes_under_way_are_bounded() {
    let outcome = run(Settings { delay: 1, ..Settings::default() }, 0, &vec![(0, 0); PACKETS + 3]);
    assert_eq!((outcome.arrived.len(), outcome.counters.lost), (PACKETS, 3));
}

#[test]
fn a_packet_that_none_follows_is_not_held_for_long() {
    let settings = Settings { reorder: Chance::new(1.0).unwrap(), ..Settings::default() };
    let outcome = run(settings, 0, &[(0, 4), (HOLD + 1, 4), (0, 4)]);
    assert_eq!(outcome.numbers(), [0, 2, 1]);
    assert_eq!(outcome.counters.reordered, 1);
}

#[test]
fn what_is_under_way_arrives_in_spite_of_a_partition() {
    let mut link = Impairment::new(Settings { delay: MS, ..Settings::default() }, 0);
    let mut counters = Counters::default();
    link.offer(0, packet(0, 4), &mut counters);
    link.set(Settings { partition: true, ..Settings::default() });
    link.offer(0, packet(1, 4), &mut counters);
    assert_eq!(link.due(MS), Some(packet(0, 4)));
    link.set(Settings::default());
    link.offer(2 * MS, packet(2, 4), &mut counters);
    assert_eq!(link.due(2 * MS), Some(packet(2, 4)));
    assert_eq!(counters.lost, 1);
}

#[test]
fn a_chance_is_from_0_to_1() {
    for wrong in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
        assert_eq!(Chance::new(wrong), None);
    }
}
