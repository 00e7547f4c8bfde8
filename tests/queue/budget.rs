//! How much memory one queue takes.
use crate::fake::{Config, HostMemory};
use crate::rig::World;
use drv_virtio_block::arena::{Arena, LINE};
use drv_virtio_block::dma::{Buffer, DeviceAddress, DmaRegion, Segment};
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::queue::{Chaining, PrepareError, Prepared, QueueOptions};
use std::mem::MaybeUninit;

/// What a caller usually hands over: one segment.
struct Page(Segment);

// SAFETY: never submitted.
unsafe impl Buffer for Page {
    fn segments(&self) -> &[Segment] {
        std::slice::from_ref(&self.0)
    }
}

/// DMA and private bytes of one queue, as taken from larger pieces.
fn taken(options: &QueueOptions, disk: &Geometry) -> (usize, usize) {
    let memory = HostMemory::new(1 << 20);
    let mut private = vec![MaybeUninit::uninit(); 1 << 20];
    let aligned = private.as_ptr().align_offset(LINE);
    // SAFETY: zeroed memory that lives as long as the queue, which no device ever learns of.
    let mut dma = unsafe { DmaRegion::new(memory.base(), DeviceAddress(memory.device_base()), memory.len()) };
    let mut arena = Arena::new(&mut private[aligned..]);
    let before = (dma.left(), arena.left());
    let queue = Prepared::<Page>::new(options, disk, &mut dma, &mut arena).unwrap();
    assert!(queue.slots() > 0);
    (before.0 - dma.left(), before.1 - arena.left())
}

#[test]
fn a_queue_of_256_takes_at_most_64_kib_in_either_layout() {
    let mut world = World::new(Config::default());
    let live = world.owned(&QueueOptions::default());
    let disk = live.running.geometry();
    for chaining in [Chaining::Direct, Chaining::Indirect] {
        let options = QueueOptions { size: 256, chaining, ..QueueOptions::default() };
        let (dma, private) = taken(&options, disk);
        println!("{chaining:?}: {dma} DMA + {private} private = {} bytes", dma + private);
        assert!(dma + private <= 64 << 10, "{chaining:?}");
        assert!(dma <= Prepared::<Page>::dma_bytes(&options, disk).unwrap(), "the planned bytes are enough");
    }
}

#[test]
fn a_region_of_the_planned_bytes_holds_the_queue_whole() {
    let mut world = World::new(Config { max_queue_size: 1024, ..Config::default() });
    let live = world.owned(&QueueOptions::default());
    let disk = live.running.geometry();
    let forms = [Chaining::Direct, Chaining::Indirect];
    for (size, chaining) in [4, 64, 256, 1024].into_iter().flat_map(|size| forms.map(|form| (size, form))) {
        for large_tables in [0, 3] {
            let options = QueueOptions { size, chaining, large_tables, ..QueueOptions::default() };
            let bytes = Prepared::<Page>::dma_bytes(&options, disk).unwrap();
            let whole = slots_in(1 << 20, &options, disk).unwrap();
            assert_eq!(slots_in(bytes, &options, disk), Ok(whole), "size {size}: no slot is given up");
            if large_tables == 0 && size > 4 {
                let fewer = slots_in(bytes * 3 / 4, &options, disk).expect("fewer slots, but a queue");
                assert!(fewer < whole, "size {size}");
            }
            assert!(matches!(slots_in(64, &options, disk), Err(PrepareError::Dma(_))));
        }
    }
}

/// Slots of a queue in a region of `bytes`.
fn slots_in(bytes: usize, options: &QueueOptions, disk: &Geometry) -> Result<u16, PrepareError> {
    let memory = HostMemory::new(1 << 20);
    let mut private = vec![MaybeUninit::uninit(); 1 << 20];
    // SAFETY: as in `taken`.
    let mut dma = unsafe { DmaRegion::new(memory.base(), DeviceAddress(memory.device_base()), bytes) };
    Prepared::<Page>::new(options, disk, &mut dma, &mut Arena::new(&mut private)).map(|queue| queue.slots())
}
