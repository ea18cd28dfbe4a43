//! The program above: its packets, its flags, and messages of FRCP for it or another user.

use super::{Flow, How, Protocol, TURN, User};
use crate::outlet::{Blocker, Manner, Way};
use crate::ring::{End, Flags, Read, Ring, Write};
use crate::run::Run;
use crate::stack::{Stack, Where};

/// Nanoseconds until a long message for which there is no memory is tried again.
const RETRY: u64 = 250_000_000;
/// Bytes that one flow may send before the others get their turn.
const QUANTUM: usize = 512 << 10;
/// A program can make it seem so often in a turn that there is room.
const GLANCES: u32 = 8;

/// Why no more packets of the program are taken in.
#[derive(Debug)]
enum Pause {
    /// The others have their turn.
    Turn,
    /// None can be sent until the peer has said something, or time has passed.
    Held,
    /// None can be sent until there is room.
    Blocked(Blocker),
    /// There are none.
    Empty,
}

impl<R: Ring> Flow<R> {
    pub(super) fn forget_room(&mut self) {
        if let User::Program(ring) = &self.user
            && std::mem::take(&mut self.awaits_room)
        {
            ring.forget_room();
        }
    }

    /// Let the program at the other end of a loop see the flags that this one set, behind all that it wrote before, and the
    /// other way round. `all`: everything that the program wrote was taken in.
    pub(super) fn show_flags(&mut self, stack: &mut Stack<R>, all: bool) {
        let (User::Program(ring), Way::Loop(other), Protocol::Raw { .. }) =
            (&self.user, self.outlet.way, &self.protocol)
        else {
            return;
        };
        // A Down flag does not tell whose it is: one that is shown here hides whether this program has set its own. So once
        // more, after one was taken back.
        for _ in 0..2 {
            let mut flags = if self.user_gone.is_some() { Flags::default() } else { ring.flags() };
            flags.down &= !self.shown.down;
            if !all {
                flags.keep(self.said);
            }
            self.said = flags;
            let Some(far) = stack.flow(other) else { return };
            let User::Program(far_ring) = &far.user else { return };
            let told = show(far_ring, &mut far.shown, flags, far.inbox.is_empty());
            show(ring, &mut self.shown, far.said, self.inbox.is_empty());
            if told {
                // It may see its own now.
                stack.rang(other);
            }
        }
    }

    /// Take in packets of the program; whether there may be more of them that could be taken now.
    pub(super) fn take_in(&mut self, now: u64, stack: &mut Stack<R>, blocker: &mut Option<Blocker>) -> bool {
        if self.user_gone.is_some() || !matches!(self.user, User::Program(_)) {
            return false;
        }
        let outcome = self.take_turn(now, stack);
        if self.doomed == Some(0) || (self.doomed.is_some() && matches!(outcome, Ok(Pause::Empty) | Err(End::Down))) {
            self.user_is_gone(now, How::Died);
            return false;
        }
        let User::Program(ring) = &self.user else { return false };
        match outcome {
            Ok(Pause::Turn) => true,
            Ok(Pause::Held) => false,
            Ok(Pause::Blocked(why)) => {
                *blocker = Some(why);
                false
            }
            // We are told of changes only, not of packets that came while the ring was read last.
            Ok(Pause::Empty) => ring.has_news(),
            // A flow that is down is readable at once and for ever, and only a change is of interest.
            Err(End::Down) => ring.rest(),
            Err(end) => {
                self.user_is_gone(now, if end == End::Closed { How::Closed } else { How::Died });
                false
            }
        }
    }

    fn take_turn(&mut self, now: u64, stack: &mut Stack<R>) -> Result<Pause, End> {
        let Flow { user: User::Program(ring), outlet, protocol, counters, scratch, doomed, retry_at, .. } = self else {
            return Ok(Pause::Empty);
        };
        *retry_at = None;
        let mut reader = ring.reader()?;
        if outlet.way == Way::Tap {
            return discard(&mut reader, scratch);
        }
        let mut quantum = QUANTUM;
        for _ in 0..TURN {
            let may = match protocol {
                Protocol::Raw { credit, .. } => credit.as_mut().is_none_or(|it| it.may_send(now)),
                Protocol::Frcp(connection) => connection.can_write(),
            };
            if !may {
                return Ok(Pause::Held);
            }
            let Some(length) = reader.available()? else { return Ok(Pause::Empty) };
            match protocol {
                Protocol::Frcp(connection) if !connection.admits(length) => {
                    *retry_at = Some(now + RETRY);
                    return Ok(Pause::Held);
                }
                Protocol::Frcp(connection) => {
                    scratch.clear();
                    reader.append_to(scratch, length);
                    // The program's side has checked the length; a program that got around that loses the packet.
                    if let Err(why) = connection.write(now, scratch) {
                        counters.count_refused(why);
                    }
                }
                Protocol::Raw { .. } if length > outlet.longest => {
                    scratch.clear();
                    reader.append_to(scratch, length);
                    counters.too_long += 1;
                }
                Protocol::Raw { credit, .. } => {
                    let frame = match outlet.open(now, stack, Manner::Data) {
                        Ok(frame) => frame,
                        Err(Blocker::Down | Blocker::Busy) => return Ok(Pause::Held),
                        Err(blocker) => return Ok(Pause::Blocked(blocker)),
                    };
                    reader.append_to(stack.bytes(&frame), length);
                    if let Some(credit) = credit {
                        credit.sent(now, length);
                    }
                    outlet.close(now, frame, counters, stack, Manner::Data);
                }
            }
            if let Some(left) = doomed {
                *left = left.saturating_sub(length.max(1));
            }
            quantum = quantum.saturating_sub(length);
            if quantum == 0 || *doomed == Some(0) {
                break;
            }
        }
        Ok(Pause::Turn)
    }

    /// Send the packets of FRCP; whether there may be more.
    pub(super) fn transmit(&mut self, now: u64, stack: &mut Stack<R>, blocker: &mut Option<Blocker>) -> bool {
        let Flow { protocol: Protocol::Frcp(connection), outlet, counters, .. } = self else { return false };
        for _ in 0..TURN {
            let frame = match outlet.open(now, stack, Manner::Data) {
                Ok(frame) => frame,
                Err(why) => {
                    *blocker = Some(why);
                    return false;
                }
            };
            if !connection.poll_transmit(now, stack.bytes(&frame)) {
                stack.discard(&frame);
                return false;
            }
            outlet.close(now, frame, counters, stack, Manner::Data);
        }
        true
    }

    /// Give the user the messages of FRCP that are next; one that does not fit waits for room. True: try again soon.
    pub(super) fn deliver(&mut self, now: u64, stack: &mut Stack<R>) -> bool {
        if !matches!(self.user, User::Program(_)) {
            self.deliver_to_others(now, stack);
            return false;
        }
        // A program that changes its mind all the time must not keep us here.
        for _ in 0..GLANCES {
            let Some(length) = self.deliver_what_fits() else { return false };
            let User::Program(ring) = &self.user else { return false };
            if !ring.want_room(length) {
                self.awaits_room = true;
                return false;
            }
            // There is room by now, or the program is gone: both show at the next try.
            ring.forget_room();
        }
        true
    }

    /// The length of the first message that does not fit.
    fn deliver_what_fits(&mut self) -> Option<usize> {
        let Flow { user: User::Program(ring), protocol: Protocol::Frcp(connection), counters, .. } = self else {
            return None;
        };
        connection.message()?;
        let mut writer = ring.writer();
        while let Some(message) = connection.message() {
            match writer.as_mut().map(|writer| writer.stage(message)) {
                Ok(Ok(true)) => counters.delivered += 1,
                Ok(Ok(false)) => return Some(message.len()),
                Ok(Err(_)) | Err(_) => counters.undelivered += 1,
            }
            connection.consume();
        }
        None
    }

    fn deliver_to_others(&mut self, now: u64, stack: &mut Stack<R>) {
        let Flow { id, user, protocol: Protocol::Frcp(connection), counters, .. } = self else { return };
        while let Some(message) = connection.message() {
            let taken = match user {
                User::Transfer(member) => stack.dispatch(now, *member, Where::Flow(*id), Run::of(message, 0), 1),
                User::Control(take @ 1..) => {
                    *take -= 1;
                    stack.tell_message(now, *id, message.to_vec());
                    true
                }
                // Its window closes.
                User::Control(_) | User::Program(_) => return,
            };
            *if taken { &mut counters.delivered } else { &mut counters.undelivered } += 1;
            connection.consume();
        }
    }
}

/// Nobody gets what the reader of a capture writes.
fn discard(reader: &mut impl Read, scratch: &mut Vec<u8>) -> Result<Pause, End> {
    for _ in 0..TURN {
        let Some(length) = reader.available()? else { return Ok(Pause::Empty) };
        scratch.clear();
        reader.append_to(scratch, length);
    }
    Ok(Pause::Turn)
}

/// Show a program the flags of its peer, behind all packets: `idle`: it has those. Whether that changed something.
fn show<R: Ring>(ring: &R, shown: &mut Flags, mut flags: Flags, idle: bool) -> bool {
    if !idle {
        flags.keep(*shown);
    }
    let changed = flags != *shown;
    if changed {
        ring.show(flags);
        *shown = flags;
    }
    changed
}
