//! What deviced may hand over and what is refused: each test changes one thing about a window that is right.
use core::ptr::NonNull;
use drv_virtio_block::dma::{DeviceAddress, DmaRegion};
use drv_virtio_block::interrupt::{InterruptGrant, MAX_INTERRUPTS};
use drv_virtio_block::platform::Badge;
use drv_virtio_block::startup::{
    Authority, BarRange, Capability, DeviceFrame, Endpoint, FrameKind, Msix, Part, StartupError,
};
use drv_virtio_block::transport::pci::{PciTransport, Window};
use drv_virtio_block::transport::{Transport, TransportError};

const COMMON: usize = 0;
const NOTIFY: usize = 1;
const ISR: usize = 2;
const DEVICE: usize = 3;
const INTERRUPT: usize = 4;
const DMA: usize = 6;
const PROVIDER: usize = 7;

/// Registers of their own for `len` bytes; `shift` misaligns them.
fn window(len: u64, shift: usize) -> Window<'static> {
    let memory = Box::leak(vec![0_u64; len as usize / 8 + 2].into_boxed_slice());
    let base = NonNull::from(memory).cast::<u8>();
    // SAFETY: the memory is leaked, larger than `shift + len`, and nobody else's.
    unsafe { Window::new(base.add(shift), len) }
}

fn frame(kind: FrameKind, offset: u64, len: u64) -> Capability<'static> {
    let place = BarRange { bar: 4, offset, len };
    Capability::Frame(DeviceFrame { kind, place, bar_len: 0x4000, window: window(len, 0) })
}

fn interrupt(badge: u8, vector: u16) -> Capability<'static> {
    Capability::Interrupt(InterruptGrant { badge: Badge::new(badge).unwrap(), vector })
}

fn dma(len: usize) -> Capability<'static> {
    let memory = Box::leak(vec![0_u8; len].into_boxed_slice());
    // SAFETY: the memory is leaked and nobody else's; no device is there.
    Capability::Dma(unsafe { DmaRegion::new(NonNull::from(memory).cast(), DeviceAddress(0x8000), len) })
}

/// The layout that QEMU gives a virtio-blk device: four frames in BAR 4, MSI-X in BAR 1.
fn handover() -> Vec<Capability<'static>> {
    vec![
        frame(FrameKind::Common, 0, 0x1000),
        frame(FrameKind::Notify { multiplier: 4 }, 0x3000, 0x1000),
        frame(FrameKind::Isr, 0x1000, 0x1000),
        frame(FrameKind::Device, 0x2000, 0x1000),
        interrupt(0, 0),
        interrupt(1, 1),
        dma(4096),
        Capability::Provider(Endpoint(9)),
    ]
}

fn msix() -> Msix {
    let range = |offset, len| BarRange { bar: 1, offset, len };
    Msix { table: range(0, 64 * 16), pending: range(0x800, 8) }
}

fn refusal(window: Vec<Capability<'static>>) -> StartupError {
    Authority::accept(Some(msix()), window).unwrap_err()
}

/// Why a window is refused in which one frame is changed.
fn with_frame(which: usize, change: impl FnOnce(&mut DeviceFrame<'static>)) -> StartupError {
    let mut window = handover();
    let Capability::Frame(frame) = &mut window[which] else { panic!("not a frame") };
    change(frame);
    refusal(window)
}

fn with_one_more(capability: Capability<'static>) -> StartupError {
    let mut window = handover();
    window.push(capability);
    refusal(window)
}

#[test]
fn what_is_needed_and_nothing_else_is_accepted_in_any_order() {
    let mut window = handover();
    window.reverse();
    let authority = Authority::accept(Some(msix()), window).unwrap();
    assert_eq!((authority.interrupts.len(), authority.dma.left(), authority.provider), (2, 4096, Endpoint(9)));
    let transport = PciTransport::new(authority.windows);
    assert_eq!(transport.status(), Ok(0));
    assert_eq!(transport.config_u32(0x1000), Err(TransportError::NoSuchField { offset: 0x1000 }));
}

#[test]
fn a_device_without_msix_comes_without_interrupts() {
    let mut window = handover();
    window.drain(INTERRUPT..INTERRUPT + 2);
    assert!(Authority::accept(None, window).unwrap().interrupts.is_empty());
}

#[test]
fn an_interrupt_of_a_device_without_msix_is_refused() {
    assert_eq!(Authority::accept(None, handover()).unwrap_err(), StartupError::InterruptWithoutMsix);
}

#[test]
fn frames_that_fill_their_bar_side_by_side_are_accepted() {
    let mut window = handover();
    // One byte of ISR between the others: no alignment is asked of it.
    window[COMMON] = frame(FrameKind::Common, 0, 56);
    window[ISR] = frame(FrameKind::Isr, 57, 1);
    window[DEVICE] = frame(FrameKind::Device, 60, 0x4000 - 60 - 2);
    window[NOTIFY] = frame(FrameKind::Notify { multiplier: 0 }, 0x3ffe, 2);
    assert!(Authority::accept(Some(msix()), window).is_ok());
}

#[test]
fn a_frame_of_which_only_the_needed_front_is_mapped_is_accepted() {
    let mut handed = handover();
    let Capability::Frame(common) = &mut handed[COMMON] else { panic!("not a frame") };
    common.window = window(56, 0);
    assert!(Authority::accept(Some(msix()), handed).is_ok());
}

#[test]
fn anything_missing_is_refused_by_name() {
    let parts = [
        (COMMON, Part::Common),
        (NOTIFY, Part::Notify),
        (ISR, Part::Isr),
        (DEVICE, Part::Device),
        (DMA, Part::Dma),
        (PROVIDER, Part::Provider),
    ];
    for (which, part) in parts {
        let mut window = handover();
        window.remove(which);
        assert_eq!(refusal(window), StartupError::Missing(part));
    }
}

#[test]
fn anything_handed_over_twice_is_refused_by_name() {
    let again = [
        (frame(FrameKind::Common, 0x100, 64), Part::Common),
        (frame(FrameKind::Notify { multiplier: 8 }, 0x100, 64), Part::Notify),
        (frame(FrameKind::Isr, 0x100, 64), Part::Isr),
        (frame(FrameKind::Device, 0x100, 64), Part::Device),
        (dma(64), Part::Dma),
        (Capability::Provider(Endpoint(1)), Part::Provider),
    ];
    for (capability, part) in again {
        assert_eq!(with_one_more(capability), StartupError::Twice(part));
    }
}

#[test]
fn a_capability_of_no_use_is_refused_even_if_all_else_is_right() {
    assert_eq!(with_one_more(Capability::Foreign), StartupError::Foreign);
}

#[test]
fn a_frame_in_a_bar_that_no_function_has_is_refused() {
    let why = with_frame(ISR, |frame| frame.place.bar = 6);
    assert_eq!(why, StartupError::NoSuchBar { part: Part::Isr, bar: 6 });
}

#[test]
fn a_frame_that_leaves_its_bar_is_refused() {
    assert_eq!(with_frame(NOTIFY, |frame| frame.place.offset += 4), StartupError::OutsideBar(Part::Notify));
    assert_eq!(with_frame(COMMON, |frame| frame.bar_len = 0xfff), StartupError::OutsideBar(Part::Common));
}

#[test]
fn a_frame_whose_end_overflows_is_refused() {
    let why = with_frame(DEVICE, |frame| {
        frame.place.offset = u64::MAX - 3;
        frame.bar_len = u64::MAX;
    });
    assert_eq!(why, StartupError::OutsideBar(Part::Device));
}

#[test]
fn frames_that_disagree_about_their_bar_are_refused() {
    assert_eq!(with_frame(DEVICE, |frame| frame.bar_len = 0x8000), StartupError::BarLength { bar: 4 });
}

#[test]
fn a_frame_too_short_for_its_registers_is_refused() {
    for (which, part, needs) in
        [(COMMON, Part::Common, 56), (NOTIFY, Part::Notify, 2), (ISR, Part::Isr, 1), (DEVICE, Part::Device, 8)]
    {
        let why = with_frame(which, |frame| {
            frame.place.len = needs - 1;
            frame.window = window(needs - 1, 0);
        });
        assert_eq!(why, StartupError::TooShort { part, needs });
        let why = with_frame(which, |frame| frame.window = window(needs - 1, 0));
        assert_eq!(why, StartupError::TooShort { part, needs }, "mapped only");
    }
}

#[test]
fn a_mapping_longer_than_its_frame_is_refused() {
    assert_eq!(with_frame(ISR, |frame| frame.window = window(0x1001, 0)), StartupError::MappedBeyond(Part::Isr));
}

#[test]
fn a_frame_that_is_not_aligned_is_refused_wherever_it_shows() {
    for (which, part, align) in [(COMMON, Part::Common, 4), (NOTIFY, Part::Notify, 2), (DEVICE, Part::Device, 4)] {
        let why = with_frame(which, |frame| {
            frame.place.offset += align / 2;
            frame.place.len -= align / 2;
            frame.window = window(frame.place.len, 0);
        });
        assert_eq!(why, StartupError::Misaligned { part, align }, "in its BAR");
        let why = with_frame(which, |frame| frame.window = window(0x100, align as usize / 2));
        assert_eq!(why, StartupError::Misaligned { part, align }, "where it is mapped");
    }
}

#[test]
fn frames_with_a_byte_in_common_are_refused() {
    let why = with_frame(ISR, |frame| frame.place.offset = 0xfff);
    assert_eq!(why, StartupError::Overlap(Part::Common, Part::Isr));
    let why = with_frame(DEVICE, |frame| frame.place.offset = 0x3000);
    assert_eq!(why, StartupError::Overlap(Part::Notify, Part::Device));
}

#[test]
fn frames_at_one_offset_of_different_bars_do_not_overlap() {
    let mut window = handover();
    let Capability::Frame(isr) = &mut window[ISR] else { panic!("not a frame") };
    isr.place = BarRange { bar: 2, offset: 0, len: 0x1000 };
    assert!(Authority::accept(Some(msix()), window).is_ok());
}

#[test]
fn a_frame_that_touches_the_msix_table_or_its_pending_bits_is_refused() {
    let last_byte_of_device = BarRange { bar: 4, offset: 0x2fff, len: 1 };
    let layouts = [Msix { table: last_byte_of_device, ..msix() }, Msix { pending: last_byte_of_device, ..msix() }];
    for layout in layouts {
        let mut window = handover();
        window.drain(INTERRUPT..INTERRUPT + 2);
        assert_eq!(Authority::accept(Some(layout), window).unwrap_err(), StartupError::TouchesMsix(Part::Device));
    }
}

#[test]
fn a_multiplier_that_would_misalign_a_doorbell_is_refused() {
    for multiplier in [1, 3, 6, 12] {
        let why = with_frame(NOTIFY, |frame| frame.kind = FrameKind::Notify { multiplier });
        assert_eq!(why, StartupError::Multiplier(multiplier));
    }
}

#[test]
fn more_interrupts_than_the_driver_can_use_are_refused() {
    let mut window = handover();
    window.drain(INTERRUPT..INTERRUPT + 2);
    window.extend((0..MAX_INTERRUPTS as u8).map(|n| interrupt(n, u16::from(n))));
    assert!(Authority::accept(Some(msix()), window).is_ok());
    let mut window = handover();
    window.extend((2..=MAX_INTERRUPTS as u8).map(|n| interrupt(n, u16::from(n))));
    assert_eq!(refusal(window), StartupError::TooManyInterrupts);
}

#[test]
fn interrupts_that_cannot_be_told_apart_are_refused() {
    assert_eq!(with_one_more(interrupt(1, 2)), StartupError::SameBadge(Badge::new(1).unwrap()));
    assert_eq!(with_one_more(interrupt(2, 0)), StartupError::SameVector(0));
}

#[test]
fn an_interrupt_beyond_the_msix_table_is_refused() {
    assert_eq!(with_one_more(interrupt(2, 64)), StartupError::NoSuchVector(64));
    assert_eq!(with_one_more(interrupt(2, 0xffff)), StartupError::NoSuchVector(0xffff));
}

#[test]
fn a_dma_region_without_memory_is_refused() {
    let mut window = handover();
    window[DMA] = dma(0);
    assert_eq!(refusal(window), StartupError::TooShort { part: Part::Dma, needs: 1 });
}

#[test]
fn every_refusal_is_one_line_that_names_what() {
    let part = Part::Notify;
    let refusals = [
        (StartupError::Missing(part), "notify frame"),
        (StartupError::Twice(part), "notify frame"),
        (StartupError::Foreign, "no use"),
        (StartupError::NoSuchBar { part, bar: 7 }, "BAR 7"),
        (StartupError::OutsideBar(part), "notify frame"),
        (StartupError::BarLength { bar: 2 }, "BAR 2"),
        (StartupError::TooShort { part, needs: 2 }, "2 bytes"),
        (StartupError::MappedBeyond(part), "notify frame"),
        (StartupError::Misaligned { part, align: 2 }, "2 bytes"),
        (StartupError::Overlap(part, Part::Isr), "ISR frame"),
        (StartupError::TouchesMsix(part), "MSI-X"),
        (StartupError::Multiplier(3), "3"),
        (StartupError::TooManyInterrupts, "33"),
        (StartupError::SameBadge(Badge::new(5).unwrap()), "badge 5"),
        (StartupError::SameVector(5), "vector 5"),
        (StartupError::NoSuchVector(5), "vector 5"),
        (StartupError::InterruptWithoutMsix, "MSI-X"),
    ];
    for (error, names) in refusals {
        let text = error.to_string();
        assert!(text.contains(names) && !text.contains('\n') && text.len() < 100, "{text}");
    }
}
