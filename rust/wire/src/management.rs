//! Management datagrams of a layer whose flows are known by endpoint ids of four bytes, as far as the engine reads them
//! (docs/spec/shims.md 3; what nodes of ours add: docs/protocol/udp.md). All other fields are for the control side.
//!
//! ```text
//! EID 0 | s_eid | d_eid | response | bandwidth | ... | code | ...
//! 0       4       8       12         16                44     45
//! ```

/// Bytes of the endpoint id in front of each packet, and of each management datagram.
pub const EID: usize = 4;
/// Bytes of the fixed part of a management datagram.
pub const FIXED: usize = 47;
/// The longest management datagram; more than that kills a peer that runs the C prototype.
pub const LONGEST: usize = 2048;

const CODE: usize = 44;
/// Where the proof is in a request, and its bytes.
const PROOF_AT: usize = 8;
const PROOF: usize = 8;
/// The codes that the engine knows.
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const DEALLOC: u8 = 0x71;
const REPORT: u8 = 0x73;
const RETRY: u8 = 0x74;

/// Where the lengths in the handshake of a request are, after the digest of the name, and what follows them.
const LENGTHS: usize = FIXED + 16 + 30;
const PARTS: usize = FIXED + 16 + 36;
const KEX: usize = 0x3FFF;
/// The extension of a node of ours in it: how it begins, its bytes, where its version and its flags are, and the flag that it
/// comes again when asked to.
const MAGIC: &[u8] = b"pyO7";
const EXTENSION: usize = 28;
const VERSION_AT: usize = 4;
const FLAGS_AT: usize = 5;
const COMES_AGAIN: u8 = 64;

/// A management datagram, at least as long as its fixed part.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a>(&'a [u8; FIXED]);

/// A report of the receiver of a raw flow to the sender: the packets that came. In place of response, bandwidth and delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The endpoint id of the flow at the side that reports; four bytes of it are sent.
    pub source: u64,
    /// The same at the side that is told.
    pub destination: u64,
    /// Packets that came in all.
    pub counted: u64,
    /// Bytes of the kernel buffer at the side that reports.
    pub room: u32,
    /// Its program has to read first.
    pub wait: bool,
}

impl<'a> Datagram<'a> {
    /// None: shorter than its fixed part.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Datagram)
    }

    /// The report that it is, if it is one.
    pub fn report(self) -> Option<Report> {
        let bytes = self.0;
        (bytes[CODE] == REPORT).then(|| Report {
            source: self.number(4).into(),
            destination: self.number(8).into(),
            wait: self.number(12) != 0,
            counted: u64::from(self.number(16)) << 32 | u64::from(self.number(20)),
            room: self.number(24),
        })
    }

    /// The part of any other message that the engine has to know.
    pub fn kind(self) -> Kind {
        match self.0[CODE] {
            REQUEST => Kind::Request { source: self.number(4), proof: self.proof() },
            REPLY | RETRY => Kind::Answer(self.number(4)),
            DEALLOC => Kind::End(self.number(8)),
            _ => Kind::Other,
        }
    }

    fn proof(self) -> u64 {
        u64::from(self.number(8)) << 32 | u64::from(self.number(12))
    }

    fn number(self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().map_or(0, u32::from_be_bytes)
    }
}

/// The kind of a message, and the endpoint id that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request for a flow.
    Request {
        /// The endpoint id of the requester.
        source: u32,
        /// The proof of its address, and that it came as it was sent (`cookie`); 0 without it.
        proof: u64,
    },
    /// An answer to a request of ours, which has that endpoint id.
    Answer(u32),
    /// The peer of a flow of ours, which has that endpoint id, let go.
    End(u32),
    /// Anything else.
    Other,
}

/// Whether a request is one of a node of ours that sends it again with a cookie, when it is asked to by `retry`. One that
/// control takes for such a request is one here, too (`wire/oap.py`, `wire/extension.py`).
pub fn comes_again(request: &[u8]) -> bool {
    extension(request).is_some_and(|blob| {
        blob.starts_with(MAGIC)
            && blob.get(VERSION_AT).is_some_and(|version| *version > 0)
            && blob.get(FLAGS_AT).is_some_and(|flags| flags & COMES_AGAIN != 0)
    })
}

fn extension(request: &[u8]) -> Option<&[u8]> {
    let lengths = request.get(LENGTHS..)?.first_chunk::<6>()?;
    let length =
        |at: usize| lengths.get(at..).and_then(<[u8]>::first_chunk).map(|two| usize::from(u16::from_be_bytes(*two)));
    let (certificate, kex, data) = (length(0)?, length(2)? & KEX, length(4)?);
    let blob = request.get(PARTS.checked_add(certificate)?.checked_add(kex)?..)?.get(..data)?;
    (blob.len() >= EXTENSION).then_some(blob)
}

/// The cookie that a request was sent with, by its proof: another one when anything in it was altered on the way. So it is asked
/// for once more, and does not make a flow of which both sides believe different things.
pub fn cookie(request: &[u8], proof: u64) -> u64 {
    let (Some(before), Some(after)) = (request.get(..PROOF_AT), request.get(PROOF_AT + PROOF..)) else { return 0 };
    let mut hasher = crc32fast::Hasher::new();
    [before, &[0; PROOF], after].into_iter().for_each(|part| hasher.update(part));
    if proof == 0 { 0 } else { proof ^ u64::from(hasher.finalize()) }
}

/// The answer to a request that has to come again with that cookie.
pub fn retry(requester: u32, cookie: u64) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    if let Some(field) = bytes.get_mut(4..).and_then(<[u8]>::first_chunk_mut) {
        *field = requester.to_be_bytes();
    }
    if let Some(field) = bytes.get_mut(8..).and_then(<[u8]>::first_chunk_mut) {
        *field = cookie.to_be_bytes();
    }
    bytes[CODE] = RETRY;
    bytes
}

impl Report {
    /// The datagram that tells it.
    pub fn encode(self) -> [u8; FIXED] {
        let mut bytes = [0; FIXED];
        let fields = [
            (4, self.source as u32),
            (8, self.destination as u32),
            (12, u32::from(self.wait)),
            (16, (self.counted >> 32) as u32),
            (20, self.counted as u32),
            (24, self.room),
        ];
        for (at, value) in fields {
            if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                *field = value.to_be_bytes();
            }
        }
        bytes[CODE] = REPORT;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_report_is_these_bytes() {
        let report = Report { source: 1, destination: 2, counted: 0x1_0000_0003, room: 0x0040_0000, wait: true };
        let mut expected = [0; FIXED];
        expected[..28].copy_from_slice(b"\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\0\0\x03\0\x40\0\0");
        expected[44] = 0x73;
        assert_eq!(report.encode(), expected);
    }

    /// A request in clear with that extension, after a certificate and a key of so many bytes.
    fn request(certificate: usize, kex: usize, blob: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED + 16];
        bytes[4..16].copy_from_slice(b"\0\0\0\x07\0\0\0\x01\0\0\0\x02");
        bytes[CODE] = REQUEST;
        bytes.extend([0; 30]);
        for length in [certificate, kex | 0x8000, blob.len()] {
            bytes.extend((length as u16).to_be_bytes());
        }
        bytes.extend(vec![9; certificate + kex]);
        bytes.extend(blob);
        bytes
    }

    #[test]
    fn a_retry_is_these_bytes_and_shorter_than_any_request() {
        let mut expected = [0; FIXED];
        expected[4..16].copy_from_slice(b"\0\0\0\x07\0\0\0\x01\0\0\0\x02");
        expected[CODE] = 0x74;
        assert_eq!(retry(7, 0x1_0000_0002), expected);
        assert_eq!(Datagram::new(&expected).map(Datagram::kind), Some(Kind::Answer(7)));
        assert!(expected.len() < request(0, 0, b"").len());
    }

    #[test]
    fn a_request_of_ours_is_known_by_its_extension_wherever_that_is() {
        let blob = [&b"pyO7\x01\x40"[..], &[0; 22]].concat();
        for (certificate, kex) in [(0, 0), (700, 91), (0, 1184)] {
            let ours = request(certificate, kex, &blob);
            assert!(comes_again(&ours) && !comes_again(&ours[..ours.len() - 1]));
            assert_eq!(
                Datagram::new(&ours).map(Datagram::kind),
                Some(Kind::Request { source: 7, proof: 0x1_0000_0002 })
            );
        }
        for other in [&b"pyO8\x01\x40"[..], b"pyO7\x01\x3f", b"pyO7\0\x40"] {
            assert!(!comes_again(&request(0, 0, &[other, &[0; 22]].concat())));
        }
        assert!(!comes_again(&request(0, 0, &blob[..27])) && !comes_again(&request(0, 0, b"")));
    }

    #[test]
    fn a_proof_is_these_bytes() {
        let mut asked = request(0, 0, b"");
        assert_eq!(cookie(&asked, 0), 0);
        let proof = 5 ^ cookie(&asked, 5) ^ 0x1122_3344_5566_7788;
        asked[8..16].copy_from_slice(&proof.to_be_bytes());
        assert_eq!(cookie(&asked, proof), 0x1122_3344_5566_7788);
        assert_eq!(proof >> 32, 0x1122_3344);
    }

    proptest! {
        #[test]
        fn a_request_that_was_altered_has_another_cookie(at: prop::sample::Index, damage in 1u8..) {
            let mut asked = request(0, 40, &[7; 28]);
            let sent = cookie(&asked, 5);
            let at = at.index(asked.len());
            asked[at] ^= damage;
            prop_assert!((PROOF_AT..PROOF_AT + PROOF).contains(&at) || cookie(&asked, 5) != sent);
        }

        #[test]
        fn any_request_is_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            comes_again(&bytes);
        }

        #[test]
        fn a_report_comes_back_as_it_went(
            source: u32, destination: u32, counted: u64, room: u32, wait: bool, more in prop::collection::vec(any::<u8>(), 0..9)
        ) {
            let report = Report { source: source.into(), destination: destination.into(), counted, room, wait };
            let sent = [&report.encode()[..], &more].concat();
            prop_assert_eq!(Datagram::new(&sent).and_then(Datagram::report), Some(report));
        }

        #[test]
        fn any_bytes_are_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let report = Datagram::new(&bytes).and_then(Datagram::report);
            prop_assert_eq!(report.is_some(), bytes.len() >= FIXED && bytes.get(CODE) == Some(&REPORT));
        }
    }
}
