//! What the I/O path costs in locked read-modify-writes and full fences, counted through `sync::spent`; and what only
//! the inside can see: a held publish gate, and the lines that the gates are on.
//!
//! The counts are exact: one more is a regression.
#[path = "../../tests/fake/mod.rs"]
mod fake;

use super::core::Shape;
use super::{Chaining, OwnedQueue, Prepared, QueueOptions, SharedQueue, Submitter, Wake};
use crate::arena::{self, Arena};
use crate::dma::{Buffer, DeviceAddress, DeviceReadable, DeviceWritable, DmaRegion, Segment};
use crate::geometry::Geometry;
use crate::request::{Completion, Error, Gone, Lba, Request};
use crate::spec::{Features, feature};
use crate::sync::spent;
use crate::transport::Doorbell;
use core::mem::MaybeUninit;
use fake::{Config, FakeDevice, HostMemory};
use std::boxed::Box;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

const FEATURES: u64 = feature::VERSION_1
    | feature::EVENT_IDX
    | feature::INDIRECT_DESC
    | feature::SEG_MAX
    | feature::FLUSH
    | feature::CONFIG_WCE;
const RING: usize = 128 << 10;

/// Sectors of the memory behind the ring; several requests may read into one.
#[derive(Debug)]
struct Page(Vec<Segment>);

// SAFETY: the memory is leaked, and nobody looks at it while a device of these tests has it.
unsafe impl Buffer for Page {
    fn segments(&self) -> &[Segment] {
        &self.0
    }
}
// SAFETY: zeroed.
unsafe impl DeviceReadable for Page {}
// SAFETY: bytes.
unsafe impl DeviceWritable for Page {}

struct Bell(FakeDevice);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.notify(0);
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self, _: u8) {}
}

type Shared = SharedQueue<'static, Page, Bell, Nobody>;
type Sub<'q> = Submitter<'q, 'static, Page, Bell, Nobody>;

/// A queue on a device that runs. Its memory is leaked: these tests are few.
fn prepared(chaining: Chaining) -> (Prepared<'static, Page>, FakeDevice) {
    let memory = HostMemory::new(RING + 512 * 64);
    let device = FakeDevice::new(Arc::clone(&memory), Config { overlap_allowed: true, ..Config::default() });
    let disk = Box::leak(Box::new(Geometry::plain(2048)));
    (disk.features, disk.seg_max, disk.writeback) = (Features(FEATURES), 126, true);
    let base = memory.base();
    // SAFETY: zeroed memory, leaked in the next line; the pages lie behind the region.
    let mut dma = unsafe { DmaRegion::new(base, DeviceAddress(memory.device_base()), RING) };
    core::mem::forget(memory);
    let mut arena = Arena::new(vec![MaybeUninit::uninit(); RING].leak());
    let options = QueueOptions { size: 256, chaining, large_tables: 1, ..QueueOptions::default() };
    let prepared = Prepared::new(&options, disk, &mut dma, &mut arena).expect("room for a queue");
    let rings = prepared.addresses();
    device.negotiate(FEATURES);
    device.set_up_queue(0, rings.size(), rings.descriptors().0, rings.driver().0, rings.device().0);
    device.go_live();
    (prepared, device)
}

fn owned(chaining: Chaining) -> (OwnedQueue<'static, Page, Bell>, FakeDevice) {
    let (prepared, device) = prepared(chaining);
    (prepared.owned(Bell(device.clone())), device)
}

fn shared(chaining: Chaining) -> (Shared, FakeDevice) {
    let (prepared, device) = prepared(chaining);
    (prepared.shared(Bell(device.clone()), Nobody), device)
}

fn page(device: &FakeDevice, token: u64) -> Page {
    let at = device.memory().device_base() + (RING as u64) + token % 64 * 512;
    Page(vec![Segment::new(DeviceAddress(at), 512)])
}

fn read(device: &FakeDevice, token: u64) -> Request<Page> {
    Request::read(Lba(token % 2048), page(device, token)).with_token(token)
}

/// One batch of reads, as the many-submitters path has it.
fn submit(submitter: &mut Sub<'_>, device: &FakeDevice, count: u64) {
    let mut batch = submitter.batch(count as u32);
    for token in 0..count {
        assert!(batch.push(read(device, token)).is_ok());
    }
    batch.publish();
}

fn reap(submitter: &mut Sub<'_>) -> Vec<Completion<Page>> {
    let mut done = Vec::with_capacity(64);
    submitter.reap(|completion| done.push(completion));
    done
}

/// What `work` spent.
fn cost<R>(work: impl FnOnce() -> R) -> (u64, R) {
    spent::take();
    let result = work();
    (spent::take(), result)
}

const BOTH: [Chaining; 2] = [Chaining::Direct, Chaining::Indirect];

#[test]
fn an_owner_spends_one_full_fence_per_published_batch_and_nothing_else() {
    for (chaining, size) in BOTH.into_iter().flat_map(|form| [1, 2, 32, 64].map(|size| (form, size))) {
        let (mut queue, device) = owned(chaining);
        for _ in 0..5 {
            let (staging, ()) = cost(|| {
                let mut batch = queue.batch();
                for token in 0..size {
                    assert!(batch.push(read(&device, token)).is_ok());
                }
                assert_eq!(spent::take(), 0, "staging is free");
                batch.publish();
            });
            device.process_all(0);
            let (reaping, count) = cost(|| queue.reap(usize::MAX, |done| assert!(done.result.is_ok())));
            assert_eq!((staging, reaping, count), (1, 0, size as usize), "{chaining:?}, batch of {size}");
            assert_eq!(cost(|| queue.batch().publish()).0, 0, "an empty batch");
            assert_eq!(cost(|| queue.arm(1)).0, 1, "the fence between the wish and the second look");
        }
        device.assert_no_faults();
    }
}

#[test]
fn a_submitter_alone_spends_two_to_submit_a_batch_and_one_to_complete_it() {
    for (chaining, size) in BOTH.into_iter().flat_map(|form| [1, 32, 64].map(|size| (form, size))) {
        let (queue, device) = shared(chaining);
        let mut one = queue.submitter().expect("a number");
        for round in 0..5 {
            let (submission, ()) = cost(|| submit(&mut one, &device, size));
            device.process_all(0);
            let (completion, done) = cost(|| reap(&mut one));
            assert_eq!(done.len() as u64, size);
            // Enter the publish gate; leave it, which is also the fence before the device's wish. Claim at first, and
            // what is more than the stash holds always.
            let claim = u64::from(round == 0 || size > 32);
            // Take the turn to drain. Put back what the stash does not hold.
            let release = u64::from(size > 32);
            let what = (chaining, size, round);
            assert_eq!((submission, completion), (2 + claim, 1 + release), "chaining, batch and round {what:?}");
        }
        device.assert_no_faults();
    }
}

#[test]
fn two_submitters_of_whom_one_drains_for_both_stay_within_the_budget() {
    for (size, most) in [(32, 0.2), (1, 5.0)] {
        let (queue, device) = shared(Chaining::Indirect);
        let (mut one, mut two) = (queue.submitter().expect("a number"), queue.submitter().expect("a number"));
        for round in 0..5 {
            let (first, ()) = cost(|| submit(&mut one, &device, size));
            let (second, ()) = cost(|| submit(&mut two, &device, size));
            device.process_all(0);
            // As alone, and one more to park what is the other's.
            let (drainer, mine) = cost(|| reap(&mut one));
            // Take what is parked.
            let (collector, theirs) = cost(|| reap(&mut two));
            assert_eq!((mine.len() as u64, theirs.len() as u64), (size, size));
            let claim = u64::from(round == 0);
            assert_eq!((first, second, drainer, collector), (2 + claim, 2 + claim, 2, 1), "batch of {size}");
            let per_io = (first + second + drainer + collector) as f64 / (2 * size) as f64;
            assert!(per_io <= most);
            std::println!("two, one drains, batch {size}: {per_io:.3} per I/O");
        }
        device.assert_no_faults();
    }
}

#[test]
fn a_submitter_that_finds_the_gate_held_leaves_its_batch_and_the_next_holder_takes_it_along() {
    for (size, most) in [(1, 5.0), (32, 0.2)] {
        let (queue, device) = shared(Chaining::Indirect);
        let (mut one, mut two) = (queue.submitter().expect("a number"), queue.submitter().expect("a number"));
        for round in 0..3 {
            assert!(queue.ends.publishing.gate.enter(), "somebody is publishing, and is preempted");
            // The staged set; word at the gate, and its fence.
            let (loser, ()) = cost(|| submit(&mut one, &device, size));
            assert_eq!(device.poll_available(0), 0);
            assert!(queue.ends.publishing.gate.leave(), "word was left");
            // Enter, leave; take the word and the staged set. The loser's work goes out with the holder's.
            let (holder, ()) = cost(|| submit(&mut two, &device, size));
            assert_eq!(device.poll_available(0), 2 * size as u16);
            device.process_all(0);
            let (drainer, mine) = cost(|| reap(&mut one));
            let (collector, theirs) = cost(|| reap(&mut two));
            assert_eq!((mine.len() as u64, theirs.len() as u64), (size, size));
            let claim = u64::from(round == 0);
            assert_eq!((loser, holder, drainer, collector), (3 + claim, 4 + claim, 2, 1), "batch of {size}");
            let per_io = (loser + holder + drainer + collector - 2 * claim) as f64 / (2 * size) as f64;
            std::println!("contended, batch {size}: {per_io:.3} per I/O");
            assert!(per_io <= most);
        }
        device.assert_no_faults();
    }
}

#[test]
fn a_submitter_that_finds_somebody_draining_spends_nothing_and_is_told_to_look_again() {
    let (queue, device) = shared(Chaining::Direct);
    let mut one = queue.submitter().expect("a number");
    submit(&mut one, &device, 8);
    device.process_all(0);
    assert!(queue.ends.reaping.turn.enter());
    let (vain, done) = cost(|| reap(&mut one));
    assert!(done.is_empty() && one.arm(), "look again: somebody is at it");
    assert_eq!(vain, 0);
    queue.ends.reaping.turn.leave();
    assert_eq!(reap(&mut one).len(), 8);
}

/// Slots that `submitter` gets when it asks for all of them.
fn slots_for(submitter: &mut Sub<'_>, device: &FakeDevice) -> u64 {
    let most = u64::from(submitter.queue().slots());
    let mut batch = submitter.batch(64);
    let count = (0..=most).take_while(|token| batch.push(read(device, *token)).is_ok()).count();
    batch.publish();
    device.process_all(0);
    while !reap(submitter).is_empty() {}
    count as u64
}

#[test]
fn idle_submitters_leave_an_eighth_of_the_slots_to_others_and_all_of_them_before_they_sleep() {
    for chaining in BOTH {
        let (queue, device) = shared(chaining);
        let slots = u64::from(queue.slots());
        let mut idle: Vec<_> = (0..10).map(|_| queue.submitter().expect("a number")).collect();
        for one in &mut idle {
            let got = slots_for(one, &device);
            assert!(got >= slots.div_ceil(8), "{chaining:?}: {got} of {slots} for one that comes late");
        }
        let mut late = queue.submitter().expect("a number");
        assert_eq!(slots_for(&mut late, &device), slots.div_ceil(8).max(slots.saturating_sub(320)), "{chaining:?}");
        for one in &mut idle {
            assert!(!one.arm(), "it may sleep");
        }
        assert_eq!(slots_for(&mut late, &device), slots);
        drop(idle);
        assert!(!late.arm());
        let mut first = queue.submitter().expect("a number");
        submit(&mut first, &device, 1);
        device.process_all(0);
        assert_eq!(cost(|| reap(&mut first)).0, 1, "the room of those that left is there again");
        device.assert_no_faults();
    }
}

#[test]
fn a_request_that_only_waits_for_the_publisher_is_withdrawn() {
    let (queue, device) = shared(Chaining::Direct);
    let (mut one, mut two) = (queue.submitter().expect("a number"), queue.submitter().expect("a number"));
    for round in 0..10 {
        assert!(queue.ends.publishing.gate.enter());
        let mut tickets = Vec::new();
        let mut batch = one.batch(4);
        for token in 0..4 {
            tickets.push(batch.push(read(&device, token)).expect("room"));
        }
        batch.publish();
        assert!(two.cancel(tickets[1]).is_none(), "another's");
        let back = one.cancel(tickets[1]).expect("the device does not know it");
        assert_eq!((back.token, back.result, back.buffer.is_some()), (1, Err(Error::Gone(Gone::Cancelled)), true));
        assert!(one.cancel(tickets[1]).is_none(), "once");
        assert!(queue.ends.publishing.gate.leave());
        submit(&mut two, &device, 1);
        assert!(one.cancel(tickets[0]).is_none(), "published with the other's");
        let mut taken: Vec<u64> = device.take(0, 99).iter().map(|one| one.sector).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 0, 2, 3], "round {round}: the device never sees it");
        device.complete_all(0, fake::Order::Reversed);
        let mut tokens: Vec<u64> = reap(&mut one).iter().map(|done| done.token).collect();
        tokens.sort_unstable();
        assert_eq!((tokens, reap(&mut two).len()), (vec![0, 2, 3], 1));
    }
    device.assert_no_faults();
}

/// A ticket of a request that ended, while another request waits for the publisher in the same slot.
#[test]
fn a_ticket_of_a_request_that_ended_does_not_withdraw_the_one_in_its_slot() {
    let (queue, device) = shared(Chaining::Direct);
    let mut one = queue.submitter().expect("a number");
    let mut old: Vec<crate::request::Ticket> = Vec::new();
    for round in 0..4 {
        assert!(queue.ends.publishing.gate.enter(), "what is submitted now waits");
        let ticket = one.submit(read(&device, round)).expect("room");
        for stale in &old {
            assert_ne!(*stale, ticket);
            assert_eq!(stale.slot, ticket.slot, "the slot that came back last goes out first");
            assert!(one.cancel(*stale).is_none(), "round {round}: it ended");
        }
        let back = one.cancel(ticket).expect("the device does not know it");
        assert_eq!((back.token, back.buffer.is_some()), (round, true));
        old.push(ticket);
        let _ = queue.ends.publishing.gate.leave();
    }
}

/// Whatever a request's chain is, its slot serves the next one, and its table of the pool the next that needs one.
#[test]
fn a_slot_whose_request_was_withdrawn_serves_every_kind_of_request_again() {
    for chaining in BOTH {
        let (queue, device) = shared(chaining);
        let mut one = queue.submitter().expect("a number");
        let slots = u64::from(queue.slots());
        let several = |count| Page(vec![page(&device, 0).0[0]; count]);
        for round in 0..2 * slots {
            assert!(queue.ends.publishing.gate.enter(), "what is submitted now waits");
            let request = match round % 4 {
                0 => Request::flush(),
                1 => Request::read(Lba(0), several(3)),
                // The pool has one table.
                2 => Request::read(Lba(0), several(40)),
                _ => read(&device, 0),
            };
            let has_buffer = request.operation() != crate::request::Operation::Flush;
            let ticket = one.submit(request.with_token(round)).expect("room");
            let back = one.cancel(ticket).expect("the device does not know it");
            assert_eq!((back.token, back.buffer.is_some()), (round, has_buffer));
            let _ = queue.ends.publishing.gate.leave();
            let mut next = vec![read(&device, 1).with_token(1), Request::flush().with_token(2)];
            next.push(Request::write(Lba(0), several(40)).with_token(3));
            for request in next {
                one.submit(request).expect("room");
                device.process_all(0);
                let done = reap(&mut one);
                assert!(done.len() == 1 && done[0].result.is_ok(), "{chaining:?}, round {round}: {done:?}");
            }
        }
        assert!(!one.arm(), "nothing is left");
        let mut late = queue.submitter().expect("a number");
        assert_eq!(slots_for(&mut late, &device), slots, "{chaining:?}: no slot was lost");
        device.assert_no_faults();
    }
}

#[test]
fn a_submitter_that_withdraws_keeps_no_more_free_slots_than_its_stash_may() {
    let (queue, device) = shared(Chaining::Direct);
    let (mut one, mut two) = (queue.submitter().expect("a number"), queue.submitter().expect("a number"));
    assert!(queue.ends.publishing.gate.enter(), "what is submitted now waits");
    let mut tickets = Vec::new();
    for _ in 0..2 {
        let mut batch = one.batch(40);
        for token in 0..40 {
            tickets.push(batch.push(read(&device, token)).expect("room"));
        }
    }
    for ticket in tickets {
        assert!(one.cancel(ticket).is_some());
    }
    let _ = queue.ends.publishing.gate.leave();
    let others = u64::from(queue.slots()) - 32;
    assert_eq!(slots_for(&mut two, &device), others, "what its stash may keep, and no more");
}

#[test]
fn a_ticket_of_a_larger_queue_names_no_request_of_this_one() {
    let (queue, device) = shared(Chaining::Direct);
    let mut one = queue.submitter().expect("a number");
    assert!(queue.ends.publishing.gate.enter(), "what is submitted now waits");
    let own = one.submit(read(&device, 0)).expect("room");
    for slot in [queue.slots(), queue.slots() + 63, 2047, u16::MAX] {
        assert!(one.cancel(crate::request::Ticket { slot, ..own }).is_none(), "slot {slot}");
    }
    assert!(one.cancel(own).is_some());
    let _ = queue.ends.publishing.gate.leave();
}

#[test]
fn a_durable_write_that_was_written_is_not_withdrawn_before_its_flush() {
    let (queue, device) = shared(Chaining::Indirect);
    let (mut one, mut two) = (queue.submitter().expect("a number"), queue.submitter().expect("a number"));
    let ticket = one.submit(Request::write_durably(Lba(0), page(&device, 0)).with_token(7)).expect("room");
    device.process_all(0);
    // The drainer stages the FLUSH while somebody holds the publish gate.
    assert!(queue.ends.publishing.gate.enter());
    assert!(reap(&mut two).is_empty());
    assert_eq!(device.poll_available(0), 0, "staged");
    assert!(one.cancel(ticket).is_none(), "the device has written it");
    assert!(queue.ends.publishing.gate.leave());
    submit(&mut two, &device, 1);
    device.process_all(0);
    let done = reap(&mut one);
    assert_eq!((done.len(), done[0].token, done[0].result), (1, 7, Ok(())));
    device.assert_no_faults();
}

#[test]
fn a_cut_request_is_not_withdrawn_in_part() {
    let (queue, device) = shared(Chaining::Direct);
    let mut one = queue.submitter().expect("a number");
    let many = Page(vec![page(&device, 0).0[0]; 300]);
    assert!(queue.ends.publishing.gate.enter());
    let ticket = one.submit(Request::read(Lba(0), many)).expect("room");
    assert!(one.cancel(ticket).is_none(), "its first piece is staged, and the request is more than that");
    assert!(queue.ends.publishing.gate.leave());
}

/// What is kept apart on this architecture: 64 bytes on riscv64, 128 on x86_64 and aarch64, 256 on s390x, 32 on arm.
const LINE: usize = align_of::<crossbeam_utils::CachePadded<u8>>();

#[test]
fn the_ends_of_the_ring_are_on_a_line_of_their_own_and_so_is_what_each_submitter_counts() {
    let (queue, _) = shared(Chaining::Direct);
    let lines = |at: usize, bytes: usize| at / LINE..=(at + bytes - 1) / LINE;
    let ends = lines((&raw const *queue.ends).addr(), size_of_val(&*queue.ends));
    let counters = lines((&raw const queue.by_submitter).addr(), size_of_val(&queue.by_submitter));
    let each = queue.by_submitter.each_ref().map(|own| (&raw const **own).addr() / LINE);
    assert!(each.is_sorted_by(|a, b| a < b), "no submitter writes another's line");
    let facts = lines((&raw const *queue.core()).addr(), size_of_val(queue.core()));
    assert!(ends.end() < facts.start() || facts.end() < ends.start(), "facts are read by all, all the time");
    assert!(ends.end() < counters.start() || counters.end() < ends.start());
    assert!(facts.end() < counters.start() || counters.end() < facts.start());
    let both = size_of_val(&queue.ends.publishing) + size_of_val(&queue.ends.reaping);
    assert!(both <= 64, "one line where lines have 64 bytes or more");
    assert_eq!(ends.count(), both.div_ceil(LINE), "on no more lines than they need");
}

/// Whoever keeps several side by side keeps them apart, on every architecture.
#[test]
fn handles_and_tables_begin_on_lines_of_this_architecture() {
    let align = [align_of::<OwnedQueue<'_, Page, Bell>>(), align_of::<Shared>(), align_of::<Sub<'_>>()];
    assert_eq!(align, [LINE; 3]);
    assert!(arena::LINE.is_multiple_of(LINE) && arena::LINE >= 64, "the layouts of the rings count on 64");
    let mut memory = vec![MaybeUninit::uninit(); 8 * arena::LINE];
    let mut arena = Arena::new(&mut memory);
    for _ in 0..3 {
        assert!(arena.place(1, |_| 0_u8).expect("room").as_ptr().addr().is_multiple_of(arena::LINE));
    }
}

#[test]
fn a_request_is_cut_from_two_gibibytes_on_whatever_the_device_allows() {
    const MOST: u64 = (1 << 31) - (1 << 16);
    let (queue, device) = prepared(Chaining::Direct);
    queue.core.geometry.set_capacity(1 << 40);
    let at = page(&device, 0).0[0].address();
    // Nothing is submitted: the segments name more memory than there is.
    let shaped = |lens: &[u64]| {
        let segments = lens.iter().map(|len| Segment::new(at, *len as u32)).collect();
        let shape = queue.core.shape(&Request::read(Lba(0), Page(segments))).expect("a request that can be");
        matches!(shape, Shape::Chain)
    };
    for (lens, whole) in [
        (&[MOST][..], true),
        (&[MOST + 512], false),
        (&[1 << 31], false),
        (&[(1 << 32) - 512], false),
        (&[MOST - 512, 512], true),
        (&[MOST - 512, 512, 512], false),
        (&[1 << 30, 1 << 30], false),
        (&[1 << 31, 1 << 31, 1 << 31], false),
    ] {
        assert_eq!(shaped(lens), whole, "{lens:?}");
    }
}
