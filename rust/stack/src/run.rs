//! Packets that arrived together (GRO).

/// Packets of one size, the last of which may be shorter, in one buffer, each behind `skip` bytes that were read already or
/// are none of it, as the `trim` bytes behind it.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    bytes: &'a [u8],
    stride: usize,
    skip: usize,
    trim: usize,
    /// The buffer has nothing else in it, and may leave as it is.
    whole: bool,
}

impl<'a> Run<'a> {
    /// `stride`: bytes of each packet.
    pub fn new(bytes: &'a [u8], stride: usize) -> Self {
        Run { bytes, stride: stride.max(1), skip: 0, trim: 0, whole: false }
    }

    /// The same, in a buffer that may leave as it is.
    pub(crate) fn whole(bytes: &'a [u8], stride: usize) -> Self {
        Run { whole: true, ..Run::new(bytes, stride) }
    }

    /// Bytes of each packet with all that was read of it already, if the packets are all that is in a buffer that may leave as
    /// it is, and so many bytes of each were read.
    pub(crate) fn stride_of_whole(self, read: usize) -> Option<usize> {
        (self.whole && self.skip == read).then_some(self.stride.min(self.bytes.len()))
    }

    /// Packets of one size in places of `stride` bytes, of which there are so many before and behind each of them.
    pub fn in_places(bytes: &'a [u8], stride: usize, (before, behind): (usize, usize)) -> Self {
        Run { skip: before, trim: behind, ..Run::new(bytes, stride) }
    }

    /// A single packet, behind so many bytes of its datagram. It may be empty, the datagram may not.
    pub fn of(datagram: &'a [u8], skip: usize) -> Self {
        Run { skip, ..Run::new(datagram, datagram.len()) }
    }

    /// How many packets there are.
    pub fn count(self) -> u64 {
        self.bytes.len().div_ceil(self.stride) as u64
    }

    /// Bytes of all packets, without the part of each that was read already.
    pub(crate) fn bytes(self) -> u64 {
        self.bytes.len() as u64 - self.count() * (self.skip + self.trim) as u64
    }

    /// The packets that are not empty. Only the last one can be shorter than the others.
    pub(crate) fn filled(self) -> Self {
        let rest = self.bytes.len() % self.stride;
        let none = self.skip + self.trim;
        if self.stride <= none {
            return Run { bytes: &[], whole: false, ..self };
        }
        if rest > 0 && rest <= none {
            let bytes = self.bytes.get(..self.bytes.len() - rest).unwrap_or_default();
            return Run { bytes, whole: false, ..self };
        }
        self
    }

    /// The packets, without the part of each that was read already.
    pub fn packets(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.stride).map(move |place| self.packet(place).unwrap_or_default())
    }

    fn packet(self, place: &'a [u8]) -> Option<&'a [u8]> {
        place.get(self.skip..place.len().checked_sub(self.trim)?)
    }

    /// The same, with so many bytes more of each packet that were read already.
    pub(crate) fn unread(self, bytes: usize) -> Self {
        Run { skip: self.skip.saturating_sub(bytes), ..self }
    }

    /// The first bytes of the first packet, the packets behind them that follow with the same, and the other packets. None:
    /// there are no packets, or only one that is shorter, or all are.
    pub(crate) fn split<const HEADER: usize>(self) -> Option<([u8; HEADER], Run<'a>, Run<'a>)> {
        let Run { bytes, stride, skip, .. } = self;
        let has = |place: &'a [u8]| self.packet(place)?.first_chunk::<HEADER>();
        let mut packets = bytes.chunks(stride);
        let header = has(packets.next()?)?;
        let same = 1 + packets.take_while(|packet| has(packet) == Some(header)).count();
        let (first, others) = bytes.split_at((same * stride).min(bytes.len()));
        let whole = self.whole && others.is_empty();
        let first = Run { bytes: first, skip: skip + HEADER, whole, ..self };
        Some((*header, first, Run { bytes: others, whole: false, ..self }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Found = Vec<([u8; 2], Vec<Vec<u8>>)>;

    /// Headers and what follows them, then how many packets are too short for a header.
    fn taken_apart(run: Run<'_>) -> (Found, u64) {
        let (mut found, mut rest) = (Vec::new(), run);
        while let Some((header, same, others)) = rest.split::<2>() {
            found.push((header, same.packets().map(<[u8]>::to_vec).collect()));
            rest = others;
        }
        (found, rest.count())
    }

    #[test]
    fn packets_with_the_same_header_stay_together() {
        let run = Run::new(b"aa1aa2bb3aa4aa", 3);
        let expected = [(b"aa", vec!["1", "2"]), (b"bb", vec!["3"]), (b"aa", vec!["4", ""])];
        let expected =
            expected.map(|(header, packets)| (*header, packets.iter().map(|it| it.as_bytes().to_vec()).collect()));
        assert_eq!(taken_apart(run), (expected.to_vec(), 0));
        let (_, same, _) = run.split::<1>().unwrap_or_else(|| unreachable!());
        assert_eq!(same.split::<1>().map(|(next, two, _)| (next, two.count())), Some((*b"a", 2)));
        assert!(same.unread(1).packets().eq([b"aa1", b"aa2"]));
    }

    #[test]
    fn what_is_around_packets_in_places_is_none_of_them() {
        let run = Run::in_places(b"-aa1.-aa2.-bb3.", 5, (1, 1));
        assert_eq!((run.count(), run.bytes(), run.filled().count()), (3, 9, 3));
        assert!(run.packets().eq([b"aa1", b"aa2", b"bb3"]));
        let expected = [(b"aa", vec!["1", "2"]), (b"bb", vec!["3"])];
        let expected =
            expected.map(|(header, packets)| (*header, packets.iter().map(|it| it.as_bytes().to_vec()).collect()));
        assert_eq!(taken_apart(run), (expected.to_vec(), 0));
        assert_eq!(Run::in_places(b"-.-.", 2, (1, 1)).filled().count(), 0);
        assert_eq!(taken_apart(Run::in_places(b"-a..", 4, (1, 2))), (vec![], 1));
    }

    #[test]
    fn packets_without_a_header_are_left() {
        assert_eq!(taken_apart(Run::new(b"aa1a", 3)), (vec![(*b"aa", vec![b"1".to_vec()])], 1));
        assert_eq!(taken_apart(Run::new(b"aaa", 1)), (vec![], 3));
        assert_eq!(taken_apart(Run::of(b"", 0)), (vec![], 0));
        assert_eq!(taken_apart(Run::of(b"aa", 0)), (vec![(*b"aa", vec![vec![]])], 0));
        assert!(Run::of(b"aa", 2).packets().eq([b""]));
    }

    proptest! {
        #[test]
        fn no_packet_is_lost_or_changed(bytes in prop::collection::vec(0..2u8, 0..200), stride in 0..9usize) {
            let (found, short) = taken_apart(Run::new(&bytes, stride));
            let joined = found.iter().flat_map(|(header, packets)| packets.iter().map(|packet| [&header[..], packet].concat()));
            let whole: Vec<Vec<u8>> = bytes.chunks(stride.max(1)).map(<[u8]>::to_vec).collect();
            let kept = whole.iter().filter(|packet| packet.len() >= 2).cloned();
            prop_assert!(joined.eq(kept));
            let run = Run { skip: 1, ..Run::new(&bytes, stride) }.filled();
            prop_assert_eq!(run.bytes(), run.packets().map(|packet| packet.len() as u64).sum::<u64>());
            prop_assert_eq!(short, whole.iter().filter(|packet| packet.len() < 2).count() as u64);
        }
    }
}
