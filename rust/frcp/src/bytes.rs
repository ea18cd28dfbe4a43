//! A queue of bytes in one piece of memory: what is written once, sent perhaps several times, and given up in order.

const LEAST: usize = 1 << 12;

/// Positions count all bytes since the beginning.
#[derive(Debug)]
pub struct Bytes {
    /// A power of two of them, or none.
    data: Vec<u8>,
    head: u64,
    tail: u64,
    /// Memory that an empty queue keeps.
    spare: usize,
}

impl Bytes {
    /// An empty queue, which keeps so much memory when it is empty again.
    pub fn new(spare: usize) -> Self {
        Bytes { data: Vec::new(), head: 0, tail: 0, spare }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// The position of the next byte that is added.
    pub fn end(&self) -> u64 {
        self.tail
    }

    fn place(&self, position: u64) -> usize {
        position as usize & self.data.len().wrapping_sub(1)
    }

    /// Add bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.reserve(bytes.len());
        let at = self.place(self.tail);
        let first = bytes.len().min(self.data.len() - at);
        self.data[at..at + first].copy_from_slice(&bytes[..first]);
        self.data[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        self.tail += bytes.len() as u64;
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.len() + more;
        if needed <= self.data.len() {
            return;
        }
        let size = needed.next_power_of_two().max(LEAST);
        let mut data = Vec::with_capacity(size);
        self.copy(self.head, self.len(), &mut data);
        data.resize(size, 0);
        // The bytes keep their positions: they move to the places that these have now.
        let shift = self.head as usize & (size - 1);
        data.rotate_right(shift);
        self.data = data;
    }

    /// Append bytes from a position on; nothing if they are not there.
    pub fn copy(&self, position: u64, length: usize, out: &mut Vec<u8>) {
        if length == 0 || position < self.head || position + length as u64 > self.tail {
            return;
        }
        let at = self.place(position);
        let first = length.min(self.data.len() - at);
        out.extend_from_slice(&self.data[at..at + first]);
        out.extend_from_slice(&self.data[..length - first]);
    }

    /// Give up all before a position.
    pub fn release(&mut self, position: u64) {
        self.head = position.clamp(self.head, self.tail);
        if self.head == self.tail && self.data.len() > self.spare {
            self.data = Vec::new();
        }
    }

    /// Give up everything, and the memory.
    pub fn clear(&mut self) {
        self.head = self.tail;
        self.data = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_keep_their_positions(steps in prop::collection::vec((0usize..9000, 0usize..9000), 1..60)) {
            let mut bytes = Bytes::new(1 << 20);
            let mut all = vec![];
            let mut head = 0;
            for (more, less) in steps {
                let part = (0..more).map(|n| (n * 7 + all.len()) as u8).collect::<Vec<_>>();
                bytes.push(&part);
                all.extend_from_slice(&part);
                head = all.len().min(head + less);
                bytes.release(head as u64);
                prop_assert_eq!(bytes.len(), all.len() - head);
                let mut out = vec![];
                bytes.copy(head as u64, all.len() - head, &mut out);
                prop_assert_eq!(&out, &all[head..]);
            }
        }
    }

    #[test]
    fn what_is_not_there_is_not_copied() {
        let mut bytes = Bytes::new(1 << 20);
        bytes.push(b"abc");
        bytes.release(1);
        let mut out = vec![];
        bytes.copy(0, 2, &mut out);
        bytes.copy(1, 3, &mut out);
        assert!(out.is_empty());
        bytes.copy(1, 2, &mut out);
        assert_eq!(out, b"bc");
    }
}
