//! A broadcast layer between endpoints of one process.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::layers::Broadcast;
use ouroboros_shm::channel::create;
use ouroboros_shm::endpoint::{Endpoint, Error, Wait, Wish};
use ouroboros_shm::layout::state;

fn join(layer: &Broadcast) -> Endpoint {
    let made = create().unwrap();
    let [near, far] = made.bells;
    layer.add(Endpoint::attach(&made.memory, far, 1).unwrap()).unwrap();
    Endpoint::attach(&made.memory, near, 0).unwrap()
}

fn write(member: &Endpoint, number: u32) {
    assert_eq!(member.writer().unwrap().stage(&number.to_ne_bytes()), Ok(true));
}

/// The next packet, which has to come.
fn read(member: &Endpoint) -> Result<u32, Error> {
    loop {
        if let Ok(mut reader) = member.reader()
            && let Some(length) = reader.available()?
        {
            let mut packet = Vec::new();
            reader.append_to(&mut packet, length);
            return Ok(u32::from_ne_bytes(packet.try_into().unwrap()));
        }
        let patience = Some(Instant::now() + Duration::from_secs(30));
        assert_ne!(member.wait(Wish::Packet, patience), Wait::TimedOut);
    }
}

#[test]
fn what_a_member_wrote_before_it_left_reaches_all_others() {
    let layer = Broadcast::start().unwrap();
    let others = [join(&layer), join(&layer)];
    for round in 0..200 {
        let leaver = join(&layer);
        (0..10).for_each(|number| write(&leaver, round * 10 + number));
        leaver.close();
        for other in &others {
            (0..10).for_each(|number| assert_eq!(read(other), Ok(round * 10 + number)));
        }
    }
    assert_eq!(layer.lost(), 0);
}

#[test]
fn a_member_that_is_down_hears_and_says_nothing_until_it_is_up() {
    let layer = Broadcast::start().unwrap();
    let (one, other) = (join(&layer), join(&layer));
    one.set_state(state::DOWN).unwrap();
    write(&other, 1);
    assert_eq!(read(&one), Err(Error::Down));
    one.set_state(0).unwrap();
    write(&one, 2);
    assert_eq!(read(&other), Ok(2));
}

#[test]
fn flows_of_a_layer_that_stops_go_down() {
    let mut layer = Broadcast::start().unwrap();
    let member = join(&layer);
    layer.stop();
    assert_eq!(read(&member), Err(Error::PeerClosed));
}

#[test]
fn members_of_a_layer_whose_thread_panics_end_as_died_and_so_do_those_to_come() {
    let layer = Broadcast::start().unwrap();
    let members = [join(&layer), join(&layer)];
    layer.panic();
    for member in members.iter().chain(&[join(&layer)]) {
        assert_eq!(read(member), Err(Error::PeerDead));
    }
    common::until(|| layer.failure().is_some());
    assert!(common::is_readable(layer.news()));
    assert_eq!(read(&join(&layer)), Err(Error::PeerDead));
}
