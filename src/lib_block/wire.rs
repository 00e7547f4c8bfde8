//! Little-endian fields at fixed places of a fixed-size message. Knows no message.
//!
//! Invariant: what was not written is zero, and what a message does not use must read as zero ([`Reader::rest_is_zero`]).

/// Fills a message from the front.
pub(super) struct Writer<'b> {
    rest: &'b mut [u8],
}

impl<'b> Writer<'b> {
    pub(super) fn new(bytes: &'b mut [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Appends bytes. The messages' sizes are asserted, so that there is always room for what a message has.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let (place, rest) = core::mem::take(&mut self.rest).split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        self.rest = rest;
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
}

/// Takes a message apart from the front.
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `N` bytes; zeros past the end, which the fixed sizes exclude.
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else { return [0; N] };
        self.rest = rest;
        *bytes
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Whether nothing else is said.
    pub(super) fn rest_is_zero(&self) -> bool {
        self.rest.iter().all(|byte| *byte == 0)
    }
}
