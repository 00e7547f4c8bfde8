//! Every operation on its way through one queue: what reaches the device, and what comes back.
use crate::fake::wire::{block, features};
use crate::fake::{Config, Order};
use crate::rig::{FRESH, World, outcomes, pattern};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Error, Lba, Refusal, Request};

fn options(chaining: Chaining) -> QueueOptions {
    QueueOptions { size: 64, chaining, ..QueueOptions::default() }
}

const BOTH: [Chaining; 2] = [Chaining::Direct, Chaining::Indirect];

#[test]
fn what_was_written_is_on_the_disk_and_is_read_back() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        let data = pattern(1, 4096);
        let written = live.ask(Request::write(Lba(8), live.heap.holding(&data)).with_token(7));
        assert_eq!((written.token, written.result), (7, Ok(())));
        assert_eq!(written.buffer.unwrap().bytes(), data, "a write leaves its buffer alone");
        assert_eq!(live.device.disk(8, 8), data);
        let read = live.ask(Request::read(Lba(8), live.heap.whole(4096)).with_token(8));
        assert_eq!((read.token, read.result), (8, Ok(())));
        assert_eq!(read.buffer.unwrap().bytes(), data);
        live.device.assert_no_faults();
    }
}
