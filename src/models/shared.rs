//! The shared queue: submitters, their two gates and the device, on the real thing.
use super::disk::{Device, Ground, Lent, Page, Signals};
use super::explore;
use crate::geometry::Geometry;
use crate::queue::{SharedQueue, Submitter};
use crate::request::{Error, Gone, Lba, Request};
use crate::spec::request_status;
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};

type Queue = SharedQueue<'static, Page, &'static Signals, &'static Signals>;
type Own = Submitter<'static, 'static, Page, &'static Signals, &'static Signals>;

/// A disk, its queue, and two submitters; submitter n sends page n with token n.
struct Scene {
    ground: Ground,
    queue: Lent<Queue>,
}

impl Scene {
    fn new(adjust: impl FnOnce(&mut Geometry)) -> (Self, [Own; 2], Device) {
        let ground = Ground::new(adjust);
        let (prepared, device) = ground.queue();
        let queue = Ground::lend(prepared.shared(ground.signals(), ground.signals()));
        let own = [0, 1].map(|_| queue.get().submitter().unwrap());
        (Self { ground, queue }, own, device)
    }

    fn read(&self, number: usize) -> Request<Page> {
        Request::read(Lba(0), self.ground.page(number, 512)).with_token(number as u64)
    }

    /// # Safety
    /// All threads are joined, and the device is not used any more.
    unsafe fn close(self, own: impl IntoIterator<Item = Own>) {
        own.into_iter().for_each(drop);
        // SAFETY: by the contract; the queue is dropped before what it stands on.
        unsafe {
            drop(self.queue.take_back());
            self.ground.clear();
        }
    }
}

/// Takes what is there for `own` and returns how many; each is its own, done, and comes with its untouched page.
fn reap(own: &mut Own, uses: u32) -> usize {
    let number = u64::from(own.number());
    own.reap(|done| {
        assert_eq!((done.token, done.result), (number, Ok(())));
        assert_eq!(done.buffer.unwrap().uses(), uses);
    })
}

/// Fails without: the fences in `Gate::insist` and `Gate::leave`, the doorbell's decision behind the latter, the second
/// round of a publisher, `entries_before_index`.
#[test]
fn each_staged_slot_is_offered_once_and_a_device_that_sleeps_is_told() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|_| ());
        device.ring.device_event(0, false);
        let [to_a, to_b] = [scene.read(0), scene.read(1)];
        let device = thread::spawn(move || {
            device.run();
            device
        });
        let other = thread::spawn(move || {
            b.submit(to_b).unwrap();
            b
        });
        a.submit(to_a).unwrap();
        let mut b = other.join().unwrap();
        device.join().unwrap().finish();
        assert_eq!((reap(&mut a, 1), scene.queue.get().statistics().submitted), (1, 2));
        assert_eq!(reap(&mut b, 1), 1);
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// Fails without: the guard around the doorbell in `SharedQueue::publish_as_holder`.
#[test]
fn a_doorbell_that_panics_leaves_nothing_staged_that_another_relied_on() {
    explore(3, || {
        let (scene, [a, b], mut device) = Scene::new(|_| ());
        // The first publication rings, and that panics in whichever thread it is.
        scene.ground.signals().fragile.store(true, std::sync::atomic::Ordering::SeqCst);
        let [to_a, to_b] = [scene.read(0), scene.read(1)];
        let submit = |mut own: Own, request| {
            let outcome = catch_unwind(AssertUnwindSafe(|| own.submit(request).map(drop).unwrap()));
            (own, outcome.is_err())
        };
        let other = thread::spawn(move || submit(b, to_b));
        let (mut a, one_failed) = submit(a, to_a);
        let (mut b, other_failed) = other.join().unwrap();
        assert!(one_failed != other_failed, "the panic reaches one caller");
        assert_eq!(device.serve(), 2);
        assert_eq!((reap(&mut a, 1), reap(&mut b, 1)), (1, 1));
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// Fails without: the acquire in `Turn::enter`, the release in `Turn::leave`, the release of `Bitmap::put`, the acquire
/// of `Bitmap::take_of`.
#[test]
fn completions_of_two_are_handed_to_each_whoever_drains() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|_| ());
        a.submit(scene.read(0)).unwrap();
        b.submit(scene.read(1)).unwrap();
        assert_eq!(device.serve(), 2);
        let other = thread::spawn(move || {
            let done = reap(&mut b, 1);
            (b, done)
        });
        let to_a = reap(&mut a, 1);
        let (mut b, to_b) = other.join().unwrap();
        assert_eq!(to_a + reap(&mut a, 1), 1);
        assert_eq!(to_b + reap(&mut b, 1), 1);
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// Fails without: `index_before_used_entries`, the release in `Turn::leave`, the acquire in `Turn::enter`.
#[test]
fn completions_that_arrive_while_two_drain_are_not_stranded() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|_| ());
        a.submit(scene.read(0)).unwrap();
        b.submit(scene.read(1)).unwrap();
        let device = thread::spawn(move || device.serve());
        let other = thread::spawn(move || {
            let done = reap(&mut b, 1);
            (b, done)
        });
        let to_a = reap(&mut a, 1);
        let (mut b, to_b) = other.join().unwrap();
        assert_eq!(device.join().unwrap(), 2);
        assert_eq!(to_a + reap(&mut a, 1), 1);
        assert_eq!(to_b + reap(&mut b, 1), 1);
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// One submitter is told of a completion and looks until it may sleep; the other drains at any time.
///
/// Fails without: `Turn::enter` in `Submitter::arm` (a look while the other drains finds neither the entry nor what will
/// be parked), the look at the parked set there, `index_before_used_entries`.
#[test]
fn what_a_drainer_was_told_of_it_gets_before_it_may_sleep() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|_| ());
        a.submit(scene.read(0)).unwrap();
        b.submit(scene.read(1)).unwrap();
        let told = thread::spawn(move || {
            assert_eq!(device.serve(), 2);
            loop {
                let done = reap(&mut b, 1);
                if done > 0 || !b.arm() {
                    return (b, done);
                }
                thread::yield_now();
            }
        });
        let to_a = reap(&mut a, 1);
        let (mut b, to_b) = told.join().unwrap();
        assert_eq!((to_b, scene.queue.get().statistics().completed), (1, 2));
        assert_eq!(to_a + reap(&mut a, 1), 1);
        assert_eq!(reap(&mut b, 1), 0);
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// A slot goes from one submitter's stash through the free set into another's hands, and its record with it.
///
/// Fails without: the release of `Bitmap::put`, the acquire in `Bitmap::take`, `Submitter::trim` when a submitter may
/// sleep.
#[test]
fn what_a_submitter_gives_back_before_it_sleeps_another_uses() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|_| ());
        a.submit(scene.read(0)).unwrap();
        assert_eq!(device.serve(), 1);
        assert_eq!(reap(&mut a, 1), 1, "its slot is in the stash");
        let [one, two] = [1, 1].map(|number| Request::read(Lba(0), scene.ground.page(number, 512)).with_token(1));
        b.submit(one).unwrap();
        let other = thread::spawn(move || {
            let mut two = two;
            while let Err(refused) = b.submit(two) {
                two = refused.request;
                thread::yield_now();
            }
            b
        });
        while a.arm() {
            thread::yield_now();
        }
        let mut b = other.join().unwrap();
        assert_eq!(device.serve(), 2);
        assert_eq!(b.reap(|done| assert_eq!(done.token, 1)), 2);
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// Fails without: the store of `published` before the index that it repeats, the look at it after the one at the used
/// index, `entries_before_index`, `index_before_used_entries`.
#[test]
fn an_honest_device_is_never_taken_for_a_liar() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|_| ());
        let device = thread::spawn(move || {
            device.serve();
            device
        });
        let other = thread::spawn(move || {
            assert_eq!(reap(&mut b, 0), 0);
        });
        a.submit(scene.read(0)).unwrap();
        other.join().unwrap();
        device.join().unwrap().serve();
        assert_eq!((scene.queue.get().broken(), reap(&mut a, 1)), (None, 1));
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a]) };
    });
}

/// Fails without: `event_before_last_look`, the wake-up of those whose completions were parked.
#[test]
fn nobody_sleeps_on_a_completion() {
    explore(2, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|_| ());
        a.submit(scene.read(0)).unwrap();
        b.submit(scene.read(1)).unwrap();
        let device = thread::spawn(move || device.serve());
        // Reaps and asks for an interrupt until it is told to wait, or has what it waits for. Who is told to look again
        // often enough is awake as well; further rounds show nothing more.
        let wait = |own: &mut Own| {
            for _ in 0..2 {
                let done = reap(own, 1);
                if done > 0 || !own.arm() {
                    return (done, false);
                }
                thread::yield_now();
            }
            (0, true)
        };
        let other = thread::spawn(move || {
            let done = wait(&mut b);
            (b, done)
        });
        let to_a = wait(&mut a);
        let (mut b, to_b) = other.join().unwrap();
        device.join().unwrap();
        let signals = scene.ground.signals();
        let interrupted = signals.interrupt.take();
        for ((done, awake), own) in [(to_a, &mut a), (to_b, &mut b)] {
            let told = awake || interrupted || signals.woken[usize::from(own.number())].take();
            assert!(done == 1 || told, "submitter {} sleeps on a completion", own.number());
            assert_eq!(done + reap(own, 1), 1);
        }
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// Fails without: the read-modify-writes of `Bitmap::take_of` and `Bitmap::take_word`, the fences of the gate.
#[test]
fn a_staged_request_is_withdrawn_or_published_and_never_both() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|_| ());
        let [to_a, to_b] = [scene.read(0), scene.read(1)];
        let other = thread::spawn(move || {
            b.submit(to_b).unwrap();
            b
        });
        let ticket = a.submit(to_a).unwrap();
        let withdrawn = a.cancel(ticket);
        let mut b = other.join().unwrap();
        assert_eq!(device.serve(), if withdrawn.is_some() { 1 } else { 2 });
        assert_eq!(reap(&mut a, 1), usize::from(withdrawn.is_none()));
        if let Some(withdrawn) = withdrawn {
            assert_eq!((withdrawn.token, withdrawn.result), (0, Err(Error::Gone(Gone::Cancelled))));
            assert_eq!(withdrawn.buffer.unwrap().uses(), 0);
        }
        assert_eq!(reap(&mut b, 1), 1);
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// A drainer stages the FLUSH of another's durable write while a third request is being published.
///
/// Fails without: the fences in `Gate::insist` and `Gate::leave`, the second round of a publisher.
#[test]
fn what_a_drainer_stages_is_published() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|disk| disk.writeback = true);
        a.submit(Request::write_durably(Lba(0), scene.ground.page(0, 512))).unwrap();
        assert_eq!(device.serve(), 1);
        let to_b = scene.read(1);
        let other = thread::spawn(move || {
            let done = reap(&mut a, 1);
            (a, done)
        });
        b.submit(to_b).unwrap();
        let (mut a, done) = other.join().unwrap();
        assert_eq!((done, device.serve()), (0, 2), "the FLUSH and the read");
        assert_eq!(reap(&mut a, 1), 1);
        assert_eq!(reap(&mut b, 1), 1);
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// Its FLUSH may still be staged, but the write is done.
///
/// Fails without: `State::FLUSHES`, the look at `State::FLUSH_FOLLOWS` in `Submitter::cancel`.
#[test]
fn a_durable_write_that_was_done_is_not_withdrawn() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|disk| disk.writeback = true);
        let ticket = a.submit(Request::write_durably(Lba(0), scene.ground.page(0, 512))).unwrap();
        assert_eq!(device.serve(), 1);
        let to_b = scene.read(1);
        let other = thread::spawn(move || {
            b.submit(to_b).unwrap();
            b
        });
        assert_eq!(reap(&mut a, 1), 0);
        assert!(a.cancel(ticket).is_none());
        let mut b = other.join().unwrap();
        assert_eq!(device.serve(), 2, "the FLUSH and the read");
        assert_eq!((reap(&mut a, 1), reap(&mut b, 1)), (1, 1));
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// Fails without: the waking of everybody in `Submitter::drain`.
#[test]
fn a_queue_that_breaks_wakes_everybody() {
    explore(2, || {
        let (scene, [mut a, mut b], device) = Scene::new(|_| ());
        b.submit(scene.read(1)).unwrap();
        device.ring.device_use(0, u16::MAX, 0);
        device.ring.device_publish_used(1);
        let other = thread::spawn(move || (b.arm(), b));
        assert_eq!(reap(&mut a, 1), 0);
        let (awake, b) = other.join().unwrap();
        assert!(scene.queue.get().broken().is_some() || awake);
        assert!(awake || scene.ground.signals().woken[1].take());
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}

/// A device may answer what it was never told of: then nothing orders the drainer behind the submitter but the slot's
/// state, and the queue may break, but it must not read a record that is still being written.
///
/// Fails without: the release with which a slot enters state 3, the acquire in `Core::follow`.
#[test]
fn an_answer_ahead_of_its_request_breaks_nothing_but_the_queue() {
    explore(2, || {
        let (scene, [mut a, mut b], device) = Scene::new(|disk| disk.writeback = true);
        let write = Request::write_durably(Lba(0), scene.ground.page(0, 512));
        let device = thread::spawn(move || {
            device.answer(0, request_status::IOERR);
            device.ring.device_use(0, 0, 1);
            device.ring.device_publish_used(1);
        });
        let other = thread::spawn(move || {
            assert_eq!(reap(&mut b, 0), 0);
        });
        drop(a.submit(write));
        device.join().unwrap();
        other.join().unwrap();
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a]) };
    });
}

/// Fails without: the acquire in `Turn::enter`, the release in `Turn::leave`, `index_before_used_entries`.
#[test]
fn a_cut_request_is_finished_by_whoever_drains_its_last_chain() {
    explore(3, || {
        let (scene, [mut a, mut b], mut device) = Scene::new(|disk| disk.size_max = 512);
        a.batch(2).push(Request::read(Lba(0), scene.ground.page(0, 1024))).unwrap();
        let device = thread::spawn(move || {
            device.serve();
            device
        });
        let other = thread::spawn(move || {
            assert_eq!(reap(&mut b, 0), 0);
            b
        });
        let done = reap(&mut a, 2);
        let mut b = other.join().unwrap();
        device.join().unwrap().serve();
        assert_eq!(reap(&mut b, 0), 0);
        assert_eq!(done + reap(&mut a, 2), 1);
        // Its slots are free again, both.
        a.batch(2).push(Request::read(Lba(0), scene.ground.page(0, 1024))).unwrap();
        // SAFETY: joined above; the device is not used any more.
        unsafe { scene.close([a, b]) };
    });
}
