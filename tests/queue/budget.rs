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

#[test]
fn whatever_the_options_say_a_queue_is_laid_out_or_refused() {
    let mut world = World::new(Config { max_queue_size: 64, ..Config::default() });
    let live = world.owned(&QueueOptions::default());
    let disk = live.running.geometry();
    let usual = QueueOptions { size: 64, ..QueueOptions::default() };
    for number in [0, 1, 2, 3, 4, 63, 64, 65, 1 << 14, 1 << 15, u16::MAX] {
        for chaining in [Chaining::Direct, Chaining::Indirect] {
            let options = [
                QueueOptions { size: number, chaining, ..usual },
                QueueOptions { slots: number, chaining, ..usual },
                QueueOptions { large_tables: number, chaining, ..usual },
                QueueOptions { large_segments: number, chaining, ..usual },
                QueueOptions { large_segments: number, large_tables: 64, chaining, ..usual },
                QueueOptions { parents: number, chaining, ..usual },
                QueueOptions { size: number, slots: number, parents: number, large_tables: number, ..usual },
            ];
            for options in options {
                let planned = Prepared::<Page>::dma_bytes(&options, disk);
                match slots_in(1 << 20, &options, disk) {
                    Ok(slots) => assert!(slots >= 1 && planned.is_ok(), "{options:?}"),
                    Err(why) => assert!(!why.to_string().is_empty(), "{options:?}"),
                }
            }
        }
    }
}

#[test]
fn a_block_size_that_no_device_has_is_refused_with_the_sizes_that_can_be() {
    for bytes in [0, 1, 256, 513, 1 << 17, u32::MAX] {
        let mut disk = Geometry::plain(u64::MAX);
        disk.block_size = bytes;
        let refused = slots_in(1 << 20, &QueueOptions { size: 64, ..QueueOptions::default() }, &disk).unwrap_err();
        assert_eq!(refused, PrepareError::BlockSize(bytes));
        let text = format!("blocks of {bytes} bytes: a block size is a power of two from 512 to 65536");
        assert_eq!(refused.to_string(), text);
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
