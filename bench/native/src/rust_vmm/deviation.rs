//! Used lengths as devices in the field report them, one kind after the other.
use std::sync::atomic::{AtomicU32, Ordering};

/// What a request moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    /// Bytes that the device wrote, the status included.
    pub(super) written: u32,
    /// Bytes of data, whichever way they went.
    pub(super) data: u32,
    /// Bytes that the device may write.
    pub(super) writable: u32,
}

/// Which kind of length is next.
#[derive(Debug, Default)]
pub(super) struct Deviation(AtomicU32);

impl Deviation {
    /// The length to report: nothing at all (libvmm), the data without the status, the data of a write and one
    /// (Cloud Hypervisor, QEMU's vhost-user-blk), more than there is.
    pub(super) fn length(&self, moved: Moved) -> u32 {
        let lengths = [0, moved.data, moved.data + 1, moved.writable + 1];
        lengths[self.0.fetch_add(1, Ordering::Relaxed) as usize % lengths.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_nothing_the_data_one_more_and_more_than_there_is() {
        for (moved, expected) in [
            (Moved { written: 513, data: 512, writable: 513 }, [0, 512, 513, 514]),
            (Moved { written: 1, data: 512, writable: 1 }, [0, 512, 513, 2]),
        ] {
            let deviation = Deviation::default();
            let lengths: [u32; 8] = std::array::from_fn(|_| deviation.length(moved));
            assert_eq!((&lengths[..4], &lengths[4..]), (&expected[..], &expected[..]));
        }
    }
}
