//! lib-block's rings: client and server, two threads on the words that they share.
//!
//! A load in loom never sees a store that comes later, so that beside each entry lies a [`Guarded`] that whoever reads
//! or writes the entry touches: loom fails the model if the two are not ordered. The doorbells order nothing: a
//! platform's need not.
use super::disk::Ground;
use super::explore;
use crate::lib_block::ring::{Announcement, ClientEnd, Entry, Rings, ServerEnd, Stage, armed_before_last_look};
use crate::sync::{AtomicBool, AtomicU64, Guarded, Ordering};
use core::array::from_fn;
use loom::thread;

const SERVING: Announcement = Announcement { epoch: 1, stage: Stage::Serving };

/// A doorbell that stays up until it is taken.
pub(super) struct Bell(AtomicBool);

impl Bell {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(super) fn ring(&self) {
        // A read-modify-write, so that it comes before or after each taking; it orders nothing else.
        self.0.swap(true, Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

type Ends = (ClientEnd<'static>, ServerEnd<'static>);

/// Rings of `N` entries each, and what the model watches beside them.
pub(super) struct Shared<const N: usize> {
    header: [AtomicU64; 32],
    submissions: [Entry; N],
    completions: [[AtomicU64; 2]; N],
    /// Beside the entries.
    submission_places: [Guarded<()>; N],
    completion_places: [Guarded<()>; N],
    /// The client's memory, which a request gives to the server.
    data: Guarded<u32>,
    pub(super) to_server: Bell,
    pub(super) to_client: Bell,
}

impl<const N: usize> Shared<N> {
    pub(super) fn new() -> Self {
        Self {
            header: from_fn(|_| AtomicU64::new(0)),
            submissions: from_fn(|_| Entry(from_fn(|_| AtomicU64::new(0)))),
            completions: from_fn(|_| from_fn(|_| AtomicU64::new(0))),
            submission_places: from_fn(|_| Guarded::new(())),
            completion_places: from_fn(|_| Guarded::new(())),
            data: Guarded::new(0),
            to_server: Bell::new(),
            to_client: Bell::new(),
        }
    }

    pub(super) fn rings(&'static self) -> Rings<'static> {
        Rings::of(&self.header, &self.submissions, &self.completions)
    }

    fn client(&'static self) -> ClientEnd<'static> {
        // SAFETY: entries name no memory; the model watches what stands for it.
        unsafe { ClientEnd::new(self.rings().split().0) }
    }

    fn server(&'static self) -> ServerEnd<'static> {
        ServerEnd::new(self.rings().split().1)
    }

    /// Both ends, attached; the doorbells are silent.
    fn attached(&'static self) -> Ends {
        let (mut client, mut server) = (self.client(), self.server());
        server.announce(SERVING);
        client.acknowledge(1);
        assert!(server.acknowledged(1));
        (client, server)
    }

    /// Submits request `number`, whose entry says so in every word.
    fn submit(&self, client: &mut ClientEnd<'static>, number: u64) {
        touch(&self.submission_places[number as usize % N]);
        client.stage([number + 1; 8]);
        if client.publish() {
            self.to_server.ring();
        }
    }

    /// Takes request `number`.
    fn receive(&self, server: &mut ServerEnd<'static>, number: u64) {
        touch(&self.submission_places[number as usize % N]);
        assert_eq!(server.peek(0), [number + 1; 8], "the entry is seen by the server that sees its index");
        server.consume(1);
    }

    /// Answers request `number`.
    fn answer(&self, server: &mut ServerEnd<'static>, number: u64) {
        touch(&self.completion_places[number as usize % N]);
        server.post([number + 1; 2]);
        if server.publish() {
            self.to_client.ring();
        }
    }

    /// Reaps the answer to request `number`.
    fn reap(&self, client: &mut ClientEnd<'static>, number: u64) {
        touch(&self.completion_places[number as usize % N]);
        assert_eq!(client.peek(0), [number + 1; 2], "the entry is seen by the client that sees its index");
        client.consume(1);
    }

    /// Has the data, and says how often it was had.
    fn use_data(&self) -> u32 {
        // SAFETY: whose turn it is the rings say; loom fails the model if they do not order the turns.
        unsafe {
            self.data.with(|uses| {
                *uses += 1;
                *uses
            })
        }
    }
}

fn touch(place: &Guarded<()>) {
    // SAFETY: whose place it is the rings say; loom fails the model if they do not order the turns.
    unsafe { place.with(|()| ()) }
}

/// Plays `model` in every interleaving, each time in memory of its own. The threads are joined when it returns.
fn play<const N: usize>(preemptions: usize, model: impl Fn(&'static Shared<N>) + Sync + Send + 'static) {
    explore(preemptions, move || {
        let shared = Ground::lend(Shared::<N>::new());
        model(shared.get());
        // SAFETY: the model has joined its threads and kept no end.
        drop(unsafe { shared.take_back() });
    });
}

/// Takes submissions up to `count` until it may sleep: nothing is there after its wish.
fn serve_until_asleep<const N: usize>(shared: &'static Shared<N>, server: &mut ServerEnd<'static>) -> u64 {
    let mut taken = 0;
    loop {
        for _ in 0..server.look(0).unwrap() {
            shared.receive(server, taken);
            taken += 1;
        }
        server.arm();
        armed_before_last_look();
        if !server.is_waiting(0) {
            return taken;
        }
    }
}

/// Fails without: the fence in `ClientEnd::publish`, the one in `armed_before_last_look` (an entry falls between look
/// and wish), the release of the submission tail or its acquire in `ServerEnd::look` (an entry from before its index).
#[test]
fn a_submission_is_found_by_the_last_look_or_rings() {
    play::<2>(4, |shared| {
        let (mut client, mut server) = shared.attached();
        let server = thread::spawn(move || {
            let taken = serve_until_asleep(shared, &mut server);
            (server, taken)
        });
        shared.submit(&mut client, 0);
        shared.submit(&mut client, 1);
        let (mut server, taken) = server.join().unwrap();
        if taken < 2 {
            assert!(shared.to_server.take(), "a request is published, the server sleeps, no doorbell rang");
            assert_eq!(u64::from(server.look(0).unwrap()), 2 - taken);
        }
    });
}

/// Fails without: the fence in `ServerEnd::publish`, the one in `ClientEnd::arm`, the release of the completion tail or
/// its acquire in `ClientEnd::look`.
#[test]
fn a_completion_is_found_by_the_last_look_or_rings() {
    for want in [1, 2] {
        play::<2>(4, move |shared| {
            let (mut client, mut server) = shared.attached();
            let client = thread::spawn(move || {
                let mut reaped = 0;
                loop {
                    for _ in 0..client.look().unwrap() {
                        shared.reap(&mut client, reaped);
                        reaped += 1;
                    }
                    // Of two, whoever wants both and has one waits for the other.
                    if reaped == 2 || !client.arm(want.min(2 - reaped as u32), SERVING) {
                        return (client, reaped);
                    }
                }
            });
            shared.answer(&mut server, 0);
            shared.answer(&mut server, 1);
            let (client, reaped) = client.join().unwrap();
            if reaped < 2 {
                assert!(shared.to_client.take(), "completions are published, the client sleeps, no doorbell rang");
                assert_eq!(u64::from(client.look().unwrap()), 2 - reaped);
            }
        });
    }
}

/// Rings of one entry: every place is used again at once. Request and answer also carry the client's data there and
/// back.
///
/// Fails without: the release of the completion tail or its acquire in `ClientEnd::look` (an entry is written again
/// that is still read, data is used by both), the release of the submission tail or its acquire in `ServerEnd::look`.
#[test]
fn a_submission_entry_is_written_again_after_the_server_read_it() {
    play::<1>(4, |shared| {
        let (mut client, mut server) = shared.attached();
        let server = thread::spawn(move || {
            for number in 0..2 {
                while server.look(0).unwrap() == 0 {
                    thread::yield_now();
                }
                shared.receive(&mut server, number);
                shared.use_data();
                shared.answer(&mut server, number);
            }
        });
        for number in 0..2 {
            assert_eq!(shared.use_data(), number as u32 * 2 + 1);
            shared.submit(&mut client, number);
            while client.look().unwrap() == 0 {
                thread::yield_now();
            }
            shared.reap(&mut client, number);
        }
        server.join().unwrap();
    });
}

/// The client's head alone gives the place back here: the second request is there from the start.
///
/// Fails without: the release of the completion head in `ClientEnd::consume` or its acquire in `ServerEnd::look` (a
/// completion is written again that is still read), the room in `ServerEnd::look`.
#[test]
fn a_completion_entry_is_written_again_after_the_client_read_it() {
    play::<2>(4, |shared| {
        let (mut client, mut server) = shared.attached();
        // One place for answers is taken by a request that stays unanswered.
        let unanswered = 1;
        shared.submit(&mut client, 0);
        shared.submit(&mut client, 1);
        let server = thread::spawn(move || {
            for number in 0..2 {
                while server.look(unanswered).unwrap() == 0 {
                    thread::yield_now();
                }
                shared.receive(&mut server, number);
                touch(&shared.completion_places[0]);
                server.post([number + 1; 2]);
                let _ = server.publish();
            }
        });
        for number in 0..2 {
            while client.look().unwrap() == 0 {
                thread::yield_now();
            }
            touch(&shared.completion_places[0]);
            assert_eq!(client.peek(0), [number + 1; 2]);
            client.consume(1);
        }
        server.join().unwrap();
    });
}

/// The client's data was the device's under an earlier server; the rings are as that one left them.
///
/// Fails without: the release in `ServerEnd::announce` or the acquire in `ClientEnd::announcement` (data is used by
/// both), the fence in `announce` or in `ClientEnd::arm` (woken, the client does not see what for and sleeps for good),
/// the release in `ClientEnd::acknowledge` or the acquire in `ServerEnd::acknowledged` (indices from before its start),
/// the fence in `acknowledge` or in `armed_before_last_look` (the server sleeps for good).
/// Both are to be rung whatever they asked for, so no doorbell can be lost.
#[test]
fn a_client_that_sleeps_is_attached_to_the_server_that_comes() {
    const NEW: Announcement = Announcement { epoch: 2, stage: Stage::Serving };
    play::<2>(3, |shared| {
        let (mut client, mut dead) = shared.attached();
        shared.submit(&mut client, 0);
        shared.receive(&mut dead, 0);
        shared.answer(&mut dead, 0);
        // An answer that nobody reaps, a request that nobody is shown.
        client.stage([2; 8]);
        drop(dead);
        shared.to_server.take();
        let server = thread::spawn(move || {
            shared.use_data();
            let mut server = shared.server();
            server.announce(NEW);
            shared.to_client.ring();
            while !server.acknowledged(2) {
                armed_before_last_look();
                if server.acknowledged(2) {
                    break;
                }
                while !shared.to_server.take() {
                    thread::yield_now();
                }
            }
            assert!(server.look(0).unwrap() <= 1, "nothing from before");
            server
        });
        while !client.arm(2, SERVING) {
            while !shared.to_client.take() {
                thread::yield_now();
            }
        }
        assert_eq!(client.announcement(), NEW);
        shared.use_data();
        client.acknowledge(2);
        shared.to_server.ring();
        shared.submit(&mut client, 2);
        let mut server = server.join().unwrap();
        assert_eq!((server.look(0), client.look()), (Ok(1), Ok(0)));
        shared.receive(&mut server, 2);
    });
}
