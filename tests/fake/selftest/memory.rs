//! Guest memory: bounds and odd places.
use crate::fake::{HostMemory, Outside};
use std::sync::atomic::Ordering;

#[test]
fn copies_of_any_place_and_length_are_exact() {
    let memory = HostMemory::new(4096);
    let base = memory.device_base();
    for start in 0..9_u64 {
        for len in 0..35_usize {
            let data: Vec<u8> = (0..len).map(|at| (at * 7 + start as usize + 1) as u8).collect();
            memory.put(base, &[0; 64]);
            memory.put(base + start, &data);
            assert_eq!(memory.bytes(base + start, len), data, "{start} {len}");
            assert_eq!(memory.bytes(base + start + len as u64, 4), [0; 4], "nothing behind");
            assert!(memory.bytes(base, start as usize).iter().all(|byte| *byte == 0), "nothing before");
        }
    }
}

#[test]
fn device_addresses_are_not_pointers() {
    let memory = HostMemory::at(0x7000, 4096);
    memory.put(0x7001, &[9]);
    // SAFETY: one byte inside the allocation, which no other thread uses.
    assert_eq!(unsafe { memory.base().add(1).read_volatile() }, 9);
    assert_eq!(
        memory.locate(0x7010, 1).unwrap(),
        memory
            .locate(0x7000, 4096)
            .map(|base| {
                // SAFETY: inside the located range.
                unsafe { base.add(0x10) }
            })
            .unwrap()
    );
}

#[test]
fn accesses_outside_are_values_not_accesses() {
    let memory = HostMemory::new(4096);
    let (base, end) = (memory.device_base(), memory.device_base() + 4096);
    for (address, len) in [(base - 1, 1), (end, 1), (end - 1, 2), (u64::MAX, 2), (0, 0), (base, u64::MAX)] {
        assert_eq!(memory.locate(address, len), Err(Outside { address, len }));
    }
    assert!(memory.locate(end, 0).is_ok());
    assert!(memory.load16(base + 1, Ordering::Relaxed).is_err(), "index words are aligned");
    assert!(memory.store32(end - 2, 0).is_err());
    assert!(memory.read(end - 3, &mut [0; 4]).is_err());
}
