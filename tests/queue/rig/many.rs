//! Queues with many submitters: a record of who was woken, and what a submitter reaps.
use super::{Bell, Buf, Live, World};
use drv_virtio_block::queue::{Prepared, QueueOptions, SharedQueue, Submitter, Wake};
use drv_virtio_block::request::Completion;
use drv_virtio_block::transport::QueueId;
use std::sync::{Arc, Mutex};

/// Writes down who was woken.
#[derive(Clone, Default)]
pub(crate) struct Wakes(Arc<Mutex<Vec<u8>>>);

impl Wake for Wakes {
    fn wake(&self, submitter: u8) {
        self.0.lock().unwrap().push(submitter);
    }
}

impl Wakes {
    /// Who was woken since the last call.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub(crate) type Shared<'w> = SharedQueue<'w, Buf, Bell, Wakes>;
pub(crate) type Sub<'q, 'w> = Submitter<'q, 'w, Buf, Bell, Wakes>;

impl World {
    /// One queue for many.
    #[track_caller]
    pub(crate) fn shared(&mut self, options: &QueueOptions) -> (Live<'_, Shared<'_>>, Wakes) {
        self.prepared(options).share()
    }
}

impl<'w> Live<'w, Prepared<'w, Buf>> {
    pub(crate) fn share(mut self) -> (Live<'w, Shared<'w>>, Wakes) {
        let bell = self.running.doorbell(QueueId(0)).expect("a doorbell");
        let wakes = Wakes::default();
        (self.map(|prepared| prepared.shared(bell, wakes.clone())), wakes)
    }
}

/// What a submitter can have now.
pub(crate) fn take(submitter: &mut Sub<'_, '_>) -> Vec<Completion<Buf>> {
    let mut done = Vec::new();
    submitter.reap(|completion| done.push(completion));
    done
}
