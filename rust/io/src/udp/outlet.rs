//! The way of one flow to its peer and back: encryption, checksum, endpoint id, the bad link of an impaired layer, and when
//! the last packet left.

use std::net::SocketAddr;

use ouroboros_crypto::Session;

use super::batch::{Batch, Socket};
use crate::impair::{Counters, Impairment};

/// Bytes of the endpoint id in front of each packet.
pub(super) const EID: usize = 4;
const CRC: usize = 4;

/// Where packets of a flow go while it has its turn.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) batch: &'a mut Batch,
    pub(super) socket: &'a Socket,
    /// What the links of an impaired layer did.
    pub(super) shaken: &'a mut Counters,
}

#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) peer: SocketAddr,
    pub(super) peer_eid: u32,
    /// Seals each packet, and opens those of the peer.
    pub(super) crypto: Option<Session>,
    /// Each packet carries a CRC32 behind it.
    pub(super) crc: bool,
    /// See `Setup::mtu`.
    pub(super) mtu: usize,
    pub(super) link: Option<Impairment>,
    pub(super) sent_at: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Room for a packet that is opened; kept, and not cleared, for the next.
    pub(super) opened: Vec<u8>,
}

/// Why a packet of the peer is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Its checksum is wrong.
    Damaged,
    /// It was not sealed by the peer, or was here before.
    Rejected,
}

impl Outlet {
    /// Begin a datagram; its packet is to be appended to `batch.bytes`.
    pub(super) fn begin(&self, batch: &mut Batch) {
        self.address(batch);
        // It is sealed where it stands.
        let room = self.crypto.as_ref().map_or(0, |session| session.settings().suite.iv_length());
        batch.bytes.resize(batch.bytes.len() + room, 0);
    }

    fn address(&self, batch: &mut Batch) {
        batch.bytes.extend_from_slice(&self.peer_eid.to_be_bytes());
    }

    /// The packet is complete.
    pub(super) fn finish(&mut self, now: u64, line: &mut Line<'_>) {
        if let Some(session) = &mut self.crypto {
            let room = session.settings().suite.tag_length();
            line.batch.bytes.resize(line.batch.bytes.len() + room, 0);
            if session.seal_in_place(&mut line.batch.written_mut()[EID..]).is_err() {
                // After 2^63 packets, or in the child of a fork: what cannot be sealed is not sent.
                return line.batch.discard();
            }
        }
        if self.crc {
            let crc = crc32fast::hash(&line.batch.written()[EID..]);
            line.batch.bytes.extend_from_slice(&crc.to_be_bytes());
        }
        self.send(now, line);
    }

    /// Send an empty packet, which is neither sealed nor checked.
    pub(super) fn keep_alive(&mut self, now: u64, line: &mut Line<'_>) {
        self.address(line.batch);
        self.send(now, line);
    }

    /// Send what a bad link lets through by now.
    pub(super) fn pass_on(&mut self, now: u64, line: &mut Line<'_>) {
        let Some(link) = &mut self.link else { return };
        while !line.batch.blocked
            && let Some(datagram) = link.due(now)
        {
            line.batch.bytes.extend_from_slice(&datagram);
            line.batch.commit(line.socket, self.peer, self.mtu);
        }
    }

    /// When `pass_on` has something to send.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.link.as_ref().and_then(Impairment::next_deadline)
    }

    /// What is in a packet of the peer.
    pub(super) fn open<'a>(&'a mut self, packet: &'a [u8]) -> Result<&'a [u8], Unfit> {
        let packet = if self.crc { check(packet).ok_or(Unfit::Damaged)? } else { packet };
        let Some(session) = &mut self.crypto else { return Ok(packet) };
        let length = session.plain_length(packet.len()).unwrap_or(0);
        if self.opened.len() < length {
            self.opened.resize(length, 0);
        }
        let plain = &mut self.opened[..length];
        session.open_into(packet, plain).map_err(|_| Unfit::Rejected)?;
        Ok(plain)
    }

    /// Packets that were rejected as none of the peer's, and as repeated or sent back.
    pub(super) fn rejected(&self) -> (u64, u64) {
        let counters = self.crypto.as_ref().map(Session::counters).unwrap_or_default();
        (counters.forged, counters.replayed + counters.reflected)
    }

    fn send(&mut self, now: u64, line: &mut Line<'_>) {
        self.sent_at = now;
        self.packets += 1;
        self.bytes += (line.batch.written().len() - EID) as u64;
        match &mut self.link {
            None => line.batch.commit(line.socket, self.peer, self.mtu),
            Some(link) => {
                link.offer(now, line.batch.take(), line.shaken);
                self.pass_on(now, line);
            }
        }
    }
}

/// The packet without its checksum; None: it was damaged.
fn check(packet: &[u8]) -> Option<&[u8]> {
    let (body, crc) = packet.split_last_chunk::<CRC>()?;
    (crc32fast::hash(body) == u32::from_be_bytes(*crc)).then_some(body)
}
