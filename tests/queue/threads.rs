//! Many submitters at once, on threads, against a device on a thread of its own: nothing lost, nothing twice.
//!
//! A submitter sleeps when `reap` gave nothing and `arm` says that nothing is there; a wake or an interrupt ends the
//! sleep. Sleeping for long with something in flight means that a completion or a doorbell was lost.
use crate::fake::{Config, Order, Serve, Wake as ServeWake};
use crate::rig::{Bell, Buf, Room, World, pattern};
use drv_virtio_block::queue::{Chaining, QueueOptions, SharedQueue, Submitter, Wake};
use drv_virtio_block::request::{Completion, Error, Gone, Lba, Refusal, Request};
use drv_virtio_block::transport::QueueId;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// Sectors of the disk that are one submitter's.
const SHARE: u64 = 64;

/// Where submitters sleep: a word for each that stays until it is taken.
#[derive(Clone)]
struct Beds(Arc<Vec<(Mutex<bool>, Condvar)>>);

impl Beds {
    fn new(count: usize) -> Self {
        Self(Arc::new((0..count).map(|_| (Mutex::new(false), Condvar::new())).collect()))
    }

    fn rouse(&self, who: usize) {
        let (word, condition) = &self.0[who];
        *word.lock().unwrap() = true;
        condition.notify_one();
    }

    fn rouse_all(&self) {
        (0..self.0.len()).for_each(|who| self.rouse(who));
    }

    /// Sleeps until roused; false when nobody came.
    fn sleep(&self, who: usize) -> bool {
        let (word, condition) = &self.0[who];
        let (mut word, waited) = condition.wait_timeout_while(word.lock().unwrap(), PATIENCE, |word| !*word).unwrap();
        *word = false;
        !waited.timed_out()
    }
}

impl Wake for Beds {
    fn wake(&self, submitter: u8) {
        self.rouse(submitter.into());
    }
}

type Queue<'w> = SharedQueue<'w, Buf, Bell, Beds>;

/// One thread's work: writes and reads of its own share of the disk, each checked.
struct Worker<'q, 'w> {
    submitter: Submitter<'q, 'w, Buf, Bell, Beds>,
    beds: Beds,
    heap: crate::rig::Heap,
    /// What each sector of the share holds, as the seed of its pattern.
    content: Vec<Option<u64>>,
    /// By token: the sector, and the seed that a buffer must hold in the end.
    out: HashMap<u64, (usize, Option<u64>)>,
    first: u64,
    next: u64,
    done: u64,
    cancelled: u64,
}

impl Worker<'_, '_> {
    fn check(&mut self, done: Completion<Buf>) {
        let (sector, seed) = self.out.remove(&done.token).expect("a token of this submitter, once");
        self.done += 1;
        if done.result == Err(Error::Gone(Gone::Cancelled)) {
            self.cancelled += 1;
            return;
        }
        assert_eq!(done.result, Ok(()));
        let expected = seed.map_or([0; 512].to_vec(), |seed| pattern(seed, 512));
        assert!(done.buffer.expect("its buffer").bytes() == expected, "sector {sector} of submitter {}", self.first);
    }

    fn reap(&mut self) -> usize {
        let mut done = Vec::new();
        self.submitter.reap(|completion| done.push(completion));
        let count = done.len();
        for completion in done {
            self.check(completion);
        }
        count
    }

    /// Submits one batch; every fifth request is withdrawn again, if the device does not know it yet.
    fn submit(&mut self, size: u64) {
        let mut batch = self.submitter.batch(size as u32);
        let mut last = None;
        for _ in 0..size {
            let token = self.next;
            let sector = (token % SHARE) as usize;
            if self.out.values().any(|(busy, _)| *busy == sector) {
                break;
            }
            let lba = Lba(self.first + sector as u64);
            let write = (token / SHARE).is_multiple_of(2);
            let seed = self.first << 32 | token;
            let (request, seed) = match (write, token % 7) {
                (true, 0) => (Request::write_durably(lba, self.heap.holding(&pattern(seed, 512))), Some(seed)),
                (true, _) => (Request::write(lba, self.heap.holding(&pattern(seed, 512))), Some(seed)),
                (false, 0) => (Request::read(lba, self.heap.cut(&[200, 312])), self.content[sector]),
                (false, _) => (Request::read(lba, self.heap.whole(512)), self.content[sector]),
            };
            match batch.push(request.with_token(token)) {
                Ok(ticket) => {
                    last = (!write).then_some(ticket);
                    self.out.insert(token, (sector, seed));
                    self.content[sector] = seed;
                    self.next += 1;
                }
                Err(refused) => {
                    assert_eq!(refused.why, Refusal::Full);
                    break;
                }
            }
        }
        batch.publish();
        if let Some(ticket) = last.filter(|_| self.next.is_multiple_of(5))
            && let Some(cancelled) = self.submitter.cancel(ticket)
        {
            self.check(cancelled);
        }
    }

    /// So many requests, in batches of all sizes.
    fn run(&mut self, count: u64) {
        let who = usize::from(self.submitter.number());
        while self.done < count || !self.out.is_empty() {
            if self.next < count {
                self.submit((self.next % 16 + 1).min(count - self.next));
            }
            if self.reap() == 0 && !self.out.is_empty() && !self.submitter.arm() {
                assert!(self.beds.sleep(who), "submitter {who} slept on {} requests", self.out.len());
            }
            if self.out.is_empty() && self.done >= count {
                break;
            }
            if self.out.is_empty() {
                // Others hold all slots: nothing of this one's will wake it.
                std::thread::yield_now();
            }
        }
    }
}

/// `threads` submitters with `each` requests on one queue.
fn run(threads: u64, each: u64, options: &QueueOptions, order: Order, wake: ServeWake) {
    let room = Room { places: 600, place: 600, ..Room::default() };
    let mut world = World::with(Config::default(), room);
    let mut live = world.prepared(options);
    let beds = Beds::new(threads as usize);
    let rousing = beds.clone();
    live.device.on_interrupt(move |_| rousing.rouse_all());
    let bell = live.running.doorbell(QueueId(0)).unwrap();
    let live = live.map(|prepared| prepared.shared(bell, beds.clone()));
    let queue: &Queue<'_> = &live.queue;
    let serving = live.device.serve(Serve { order, batch: 24, wake, ..Serve::default() });
    let cancelled: u64 = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                let submitter = queue.submitter().unwrap();
                let first = u64::from(submitter.number()) * SHARE;
                let (beds, heap) = (beds.clone(), live.heap.clone());
                let (content, out) = (vec![None; SHARE as usize], HashMap::new());
                let mut worker = Worker { submitter, beds, heap, content, out, first, next: 0, done: 0, cancelled: 0 };
                scope.spawn(move || {
                    worker.run(each);
                    assert_eq!(worker.done, each);
                    worker.cancelled
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("a submitter without a complaint")).sum()
    });
    let served = serving.stop();
    let statistics = live.queue.statistics();
    assert_eq!((statistics.submitted, statistics.completed), (served, served), "chains");
    assert_eq!((statistics.violations, live.queue.broken(), live.heap.lent()), (0, None, 0));
    assert!(served + cancelled >= threads * each);
    assert!(live.device.notifications(0) <= live.device.notifications_asked(0), "no doorbell that was not asked for");
    live.device.assert_no_faults();
    let interrupts = live.device.interrupts_sent(1);
    println!("{threads} submitters: {served} chains, {cancelled} withdrawn, {interrupts} interrupts, {statistics:?}");
}

fn options(chaining: Chaining) -> QueueOptions {
    QueueOptions { size: 256, chaining, ..QueueOptions::default() }
}

#[test]
fn two_submitters_lose_nothing() {
    run(2, 30_000, &options(Chaining::Direct), Order::AsTaken, ServeWake::Doorbell(Duration::from_secs(2)));
}

#[test]
fn four_submitters_lose_nothing_out_of_order() {
    run(4, 15_000, &options(Chaining::Indirect), Order::Shuffled(1), ServeWake::Doorbell(Duration::from_secs(2)));
}

#[test]
fn eight_submitters_share_few_slots_and_lose_nothing() {
    let few = QueueOptions { slots: 24, ..options(Chaining::Direct) };
    run(8, 8_000, &few, Order::Reversed, ServeWake::Polling);
}
