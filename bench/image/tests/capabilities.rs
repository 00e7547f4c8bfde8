//! Which virtio capabilities of a PCI function are used. The module is the image's own, compiled for the host.
#![allow(unreachable_pub)]
#[path = "../src/pci/judge.rs"]
mod judge;

use judge::{BARS, Claim, Range, Unusable, WindowKind, first_usable, usable};

/// BAR 0 is no memory, BAR 1 has the MSI-X table, BAR 4 the windows.
const SIZES: [Option<u64>; BARS] = [None, Some(4096), None, None, Some(16384), None];
const MSIX: [Option<Range>; 2] =
    [Some(Range { bar: 1, offset: 0, len: 48 }), Some(Range { bar: 1, offset: 2048, len: 8 })];

fn claim(kind: WindowKind, offset: u32) -> Claim {
    let (capability_len, multiplier) = if kind == WindowKind::Notify { (20, 4) } else { (16, 0) };
    Claim { kind, capability_len, range: Range { bar: 4, offset, len: 4096 }, multiplier }
}

/// What a QEMU device claims.
fn sound() -> [Claim; 4] {
    let mut offset = 0;
    WindowKind::ALL.map(|kind| {
        offset += 4096;
        claim(kind, offset - 4096)
    })
}

/// Each way in which a notification structure cannot be used, and what is said of it.
fn unusable() -> Vec<(Claim, Unusable)> {
    let notify = sound()[1];
    let at = |bar, offset, len| Claim { range: Range { bar, offset, len }, ..notify };
    vec![
        (at(0, 0, 4), Unusable::NoSuchBar(0)),
        (at(5, 0, 4096), Unusable::NoSuchBar(5)),
        (at(6, 0, 4096), Unusable::NoSuchBar(6)),
        (at(255, 0, 4096), Unusable::NoSuchBar(255)),
        (at(4, 16384, 1), Unusable::BehindBar(4)),
        (at(4, 12288, 4097), Unusable::BehindBar(4)),
        (at(4, u32::MAX, u64::from(u32::MAX)), Unusable::BehindBar(4)),
        (at(4, 4096, 0), Unusable::ShortWindow),
        (at(4, 4096, 1), Unusable::ShortWindow),
        (at(4, 4097, 4), Unusable::Misaligned),
        (at(1, 32, 32), Unusable::Overlaps),
        (at(1, 2048, 4), Unusable::Overlaps),
        (Claim { capability_len: 16, ..notify }, Unusable::ShortCapability),
        (Claim { multiplier: 1, ..notify }, Unusable::Multiplier(1)),
        (Claim { multiplier: 6, ..notify }, Unusable::Multiplier(6)),
    ]
}

#[test]
fn the_first_instance_of_each_capability_that_can_be_used_is_used() {
    let [common, notify, isr, device] = sound();
    for (wrong, why) in unusable() {
        let ranges = [MSIX[0].unwrap(), MSIX[1].unwrap()];
        assert_eq!(usable(&wrong, &SIZES, &ranges), Err(why), "{wrong:?}");
        // Whether it comes first or last.
        for claims in [[wrong, common, notify, isr, device], [common, notify, wrong, isr, device]] {
            assert_eq!(first_usable(&claims, &SIZES, MSIX), Ok(sound()), "{why}");
        }
    }
    let second = Claim { range: Range { bar: 1, offset: 3072, len: 1024 }, ..notify };
    let chosen = first_usable(&[common, second, notify, isr, device], &SIZES, MSIX).unwrap();
    assert_eq!(chosen[1], second, "the first of two that can be used");
}

#[test]
fn where_no_instance_can_be_used_the_reason_is_named() {
    let [common, _, isr, device] = sound();
    for (wrong, why) in unusable() {
        let refused = first_usable(&[common, wrong, isr, device], &SIZES, MSIX);
        assert_eq!(refused, Err((WindowKind::Notify, Some(why))));
    }
    let refused = first_usable(&[common, isr, device], &SIZES, MSIX);
    assert_eq!(refused, Err((WindowKind::Notify, None)));
}

#[test]
fn every_kind_has_its_own_least_length_and_alignment() {
    let least =
        [(WindowKind::Common, 56, 4), (WindowKind::Notify, 2, 2), (WindowKind::Isr, 1, 1), (WindowKind::Device, 8, 4)];
    for (kind, len, align) in least {
        let with = |offset, len| usable(&Claim { range: Range { bar: 4, offset, len }, ..claim(kind, 0) }, &SIZES, &[]);
        assert_eq!(with(64, len), Ok(()), "{kind:?}");
        assert_eq!(with(64, len - 1), Err(Unusable::ShortWindow), "{kind:?}");
        assert_eq!(with(65, len).is_ok(), align == 1, "{kind:?}");
    }
}

#[test]
fn types_that_the_driver_has_no_use_for_are_no_kind() {
    let kinds = [1, 2, 3, 4].map(WindowKind::of_type);
    assert_eq!(kinds, WindowKind::ALL.map(Some));
    assert!([0, 5, 8, 9, 255].into_iter().all(|cfg_type| WindowKind::of_type(cfg_type).is_none()));
}

#[test]
fn overlapping_structures_are_not_both_used() {
    let [common, notify, isr, device] = sound();
    let over = Claim { range: common.range, ..notify };
    assert_eq!(first_usable(&[common, over, notify, isr, device], &SIZES, MSIX), Ok(sound()));
}
