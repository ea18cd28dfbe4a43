//! The way between a flow and its program, as the stack uses it.

/// Why nothing comes from the program any more, or goes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program let go, and everything was read.
    Closed,
    /// Likewise, but it died, or broke the rules of the ring.
    Died,
    /// The Down flag is set, by either side. It can be taken back.
    Down,
    /// The program takes no packets.
    Refused,
}

/// Both ways between a flow and its program. It never blocks.
pub trait Ring {
    /// See `reader`.
    type Reader<'a>: Read
    where
        Self: 'a;
    /// See `writer`.
    type Writer<'a>: Write
    where
        Self: 'a;
    /// Bytes that the program may have written and the flow has not read, or the other way round.
    const CAPACITY: usize;

    /// The right to read the packets of the program. Their place is free for the program when it is dropped.
    fn reader(&self) -> Result<Self::Reader<'_>, End>;
    /// The right to write. The program sees it when that is dropped.
    fn writer(&self) -> Result<Self::Writer<'_>, End>;
    /// Whether a reader finds something that it did not tell of, because it came late.
    fn has_news(&self) -> bool;
    /// The flow is down: say when that changes, and nothing else. True: it just did.
    fn rest(&self) -> bool;
    /// Tell when there is room for a packet. False: it will be told; true: there is room now, or nobody wants it.
    /// `forget_room` has to follow in both cases.
    fn want_room(&self, length: usize) -> bool;
    /// The room of `want_room` is not wanted any more.
    fn forget_room(&self);
    /// Whether a packet of that length can be written now. True when nobody wants it.
    fn has_room(&self, length: usize) -> bool;
    /// Whether the program has read everything.
    fn is_read(&self) -> bool;
    /// The flow is over: the program reads what is there, then the end. `died`: as if its peer died.
    fn close(&self, died: bool);
    /// The flags that the program itself has set.
    fn flags(&self) -> Flags;
    /// Set the flags of the flow's side.
    fn show(&self, flags: Flags);
}

/// Flags of a flow that a program can set, and that the program at the other end sees.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Neither reads nor writes.
    pub down: bool,
    /// Takes no packets.
    pub refuses: bool,
}

impl Flags {
    /// Keep only the flags that are shown already.
    pub(crate) fn keep(&mut self, shown: Flags) {
        self.down &= shown.down;
        self.refuses &= shown.refuses;
    }
}

/// See `Ring::reader`.
pub trait Read {
    /// Bytes of the next packet; None: there is none.
    fn available(&mut self) -> Result<Option<usize>, End>;
    /// Take it, as `available` told, behind `bytes`.
    fn append_to(&mut self, bytes: &mut Vec<u8>, length: usize);
}

/// See `Ring::writer`.
pub trait Write {
    /// Write a packet. False: no room.
    fn stage(&mut self, packet: &[u8]) -> Result<bool, End>;
}
