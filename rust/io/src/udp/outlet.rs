//! The way of one flow to its peer: endpoint id, checksum, the bad link of an impaired layer, and when the last packet left.

use std::net::SocketAddr;

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
    /// Each packet carries a CRC32 behind it.
    pub(super) crc: bool,
    /// See `Setup::mtu`.
    pub(super) mtu: usize,
    pub(super) link: Option<Impairment>,
    pub(super) sent_at: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Outlet {
    /// Begin a datagram; its packet is to be appended to `batch.bytes`.
    pub(super) fn begin(&self, batch: &mut Batch) {
        batch.bytes.extend_from_slice(&self.peer_eid.to_be_bytes());
    }

    /// The packet is complete.
    pub(super) fn finish(&mut self, now: u64, line: &mut Line<'_>) {
        if self.crc {
            let crc = crc32fast::hash(&line.batch.written()[EID..]);
            line.batch.bytes.extend_from_slice(&crc.to_be_bytes());
        }
        self.send(now, line);
    }

    /// Send an empty packet.
    pub(super) fn keep_alive(&mut self, now: u64, line: &mut Line<'_>) {
        self.begin(line.batch);
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

    /// The packet without its checksum; None: it was damaged.
    pub(super) fn check<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        if !self.crc {
            return Some(packet);
        }
        let (body, crc) = packet.split_last_chunk::<CRC>()?;
        (crc32fast::hash(body) == u32::from_be_bytes(*crc)).then_some(body)
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
