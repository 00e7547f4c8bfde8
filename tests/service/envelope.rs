//! The startup envelope: its bytes, and what is refused.
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::lib_block::front_end::MAX_SESSIONS;
use drv_virtio_block::lib_block::{MAX_CREDIT, Status};
use drv_virtio_block::platform::Nanos;
use drv_virtio_block::service::{ENVELOPE_BYTES, Envelope, MAX_PATIENCE};
use proptest::prelude::*;

const SAMPLE: Envelope = Envelope {
    epoch: 0x0102_0304,
    queues: 0x0506,
    queue_size: 0x4000,
    sessions: 0x0020,
    credit: 0x0200,
    mode: CompletionMode::Interrupt,
    patience: Nanos(0x0000_000d_0c0b_0a09),
};

#[test]
fn an_envelope_has_these_bytes() {
    let mut golden = [0; ENVELOPE_BYTES];
    let fields = [1, 0, 6, 5, 4, 3, 2, 1, 0, 0x40, 0x20, 0, 0, 2, 1, 0, 9, 10, 11, 12, 13, 0, 0, 0];
    golden[..24].copy_from_slice(&fields);
    assert_eq!(SAMPLE.encode(), golden);
    assert_eq!(Envelope::decode(&golden), Ok(SAMPLE));
}

#[test]
fn every_reserved_byte_is_zero() {
    for at in 24..ENVELOPE_BYTES {
        for bit in 0..8 {
            let mut bytes = SAMPLE.encode();
            bytes[at] = 1 << bit;
            assert_eq!(Envelope::decode(&bytes), Err(Status::InvalidArgument), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn another_version_is_unsupported_and_another_length_is_none() {
    for version in [0_u16, 2, 0x0100, u16::MAX] {
        let mut bytes = SAMPLE.encode();
        bytes[..2].copy_from_slice(&version.to_le_bytes());
        assert_eq!(Envelope::decode(&bytes), Err(Status::Unsupported), "version {version}");
    }
    let bytes = SAMPLE.encode();
    let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
    assert_eq!(Envelope::decode(&longer), Err(Status::InvalidArgument));
    for len in 0..ENVELOPE_BYTES {
        assert_eq!(Envelope::decode(&bytes[..len]), Err(Status::InvalidArgument), "{len} bytes");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let absurd = [
        Envelope { epoch: 0, ..SAMPLE },
        Envelope { queues: 0, ..SAMPLE },
        Envelope { queue_size: 0, ..SAMPLE },
        Envelope { queue_size: 1, ..SAMPLE },
        Envelope { queue_size: 96, ..SAMPLE },
        Envelope { queue_size: u16::MAX, ..SAMPLE },
        Envelope { sessions: 0, ..SAMPLE },
        Envelope { sessions: MAX_SESSIONS + 1, ..SAMPLE },
        Envelope { sessions: u16::MAX, ..SAMPLE },
        Envelope { credit: 0, ..SAMPLE },
        Envelope { credit: 1, ..SAMPLE },
        Envelope { credit: 3, ..SAMPLE },
        Envelope { credit: 2 * MAX_CREDIT, ..SAMPLE },
        Envelope { patience: Nanos(0), ..SAMPLE },
        Envelope { patience: Nanos(MAX_PATIENCE.0 + 1), ..SAMPLE },
        Envelope { patience: Nanos(u64::MAX), ..SAMPLE },
    ];
    for envelope in absurd {
        assert_eq!(Envelope::decode(&envelope.encode()), Err(Status::InvalidArgument), "{envelope:?}");
    }
    for mode in [2_u16, 0x0100, u16::MAX] {
        let mut bytes = SAMPLE.encode();
        bytes[14..16].copy_from_slice(&mode.to_le_bytes());
        assert_eq!(Envelope::decode(&bytes), Err(Status::InvalidArgument), "mode {mode}");
    }
}

#[test]
fn the_default_is_one_that_can_be() {
    assert_eq!(Envelope::decode(&Envelope::default().encode()), Ok(Envelope::default()));
}

fn any_envelope() -> impl Strategy<Value = Envelope> {
    let mode = prop_oneof![Just(CompletionMode::Polled), Just(CompletionMode::Interrupt)];
    (1..=u32::MAX, 1..=u16::MAX, 1..=15_u32, 1..=MAX_SESSIONS, 1..=10_u32, mode, 1..=MAX_PATIENCE.0).prop_map(
        |(epoch, queues, size, sessions, credit, mode, patience)| Envelope {
            epoch,
            queues,
            queue_size: 1 << size,
            sessions,
            credit: 1 << credit,
            mode,
            patience: Nanos(patience),
        },
    )
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(envelope in any_envelope()) {
        prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
    }

    #[test]
    fn whatever_is_decoded_has_those_bytes(envelope in any_envelope(), changes in prop::collection::vec((0..ENVELOPE_BYTES, any::<u8>()), 0..4)) {
        let mut bytes = envelope.encode();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Ok(decoded) = Envelope::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), bytes);
        }
    }

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..130)) {
        let _ = Envelope::decode(&bytes);
    }
}
