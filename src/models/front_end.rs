//! The front end's own sleep: whole passes of a [`FrontEnd`] and its [`FrontEnd::arm`], beside a client that submits.
//!
//! `lib_block.rs` has the rings' rules of order, by hand; here the front end is to follow them.
use super::disk::{Ground, Signals};
use super::explore;
use super::lib_block::{Bell, Shared};
use crate::lib_block::entry::{Completion, Operation, Submission};
use crate::lib_block::front_end::{FrontEnd, Notify, Options};
use crate::lib_block::message::{Capability, Extent, Opening, Rights};
use crate::lib_block::ring::ClientEnd;
use crate::lib_block::{Status, VERSION};
use crate::platform::Nanos;
use loom::thread;

impl Notify for &'static Bell {
    fn ring(&self, _: u16) {
        (*self).ring();
    }
}

type Front = FrontEnd<'static, &'static Signals, &'static Bell>;

fn pass(front: &mut Front) {
    front.serve(&|| Nanos(0));
}

/// A front end over an idle queue, with one session, whose client goes along; the doorbells are silent.
fn attached(ground: &Ground, shared: &'static Shared<2>) -> (Front, ClientEnd<'static>) {
    let mut arena = ground.arena();
    let queue = ground.lay_out(&mut arena);
    let options = Options { sessions: 1, credit: 2, ..Options::default() };
    let mut front =
        FrontEnd::new(queue, ground.signals(), &shared.to_client, &mut arena, options, 1).expect("room for a session");
    let capability = Capability::new(Rights::ALL, &[Extent { first: 0, blocks: 8 }]).expect("a capability");
    let opening = Opening { version: VERSION, credit: 2, weight: 1, affinity: 0, capability };
    let (client, server) = shared.rings().split();
    // SAFETY: entries name no memory.
    let mut client = unsafe { ClientEnd::new(client) };
    front.open(&opening, server, []).expect("a session");
    client.acknowledge(1);
    // Not armed: a wish from before would ring for whatever comes.
    pass(&mut front);
    shared.to_client.take();
    (front, client)
}

/// An entry that is answered without the device: there is nothing to be cancelled.
fn entry(tag: u16) -> [u64; 8] {
    Submission { tag, ..Submission::new(Operation::Cancel, 1 - u64::from(tag)) }.encode()
}

/// Fails without: `armed_before_last_look` in `FrontEnd::arm`, the wish (`ServerEnd::arm`) or the look
/// (`ServerEnd::is_waiting`) there, or the fence in `ClientEnd::publish`.
#[test]
fn a_front_end_that_sleeps_was_rung_for_what_it_did_not_see() {
    for entries in [1, 2] {
        explore(3, move || {
            let ground = Ground::new(|_| {});
            let lent = Ground::lend(Shared::<2>::new());
            let shared = lent.get();
            let (mut front, mut client) = attached(&ground, shared);
            let client = thread::spawn(move || {
                for tag in 0..entries {
                    client.stage(entry(tag));
                    if client.publish() {
                        shared.to_server.ring();
                    }
                }
                client
            });
            loop {
                // What rang before a pass is no reason to wake up after it.
                shared.to_server.take();
                pass(&mut front);
                if !front.arm() {
                    break;
                }
            }
            let mut client = client.join().unwrap();
            let answered = client.look().unwrap();
            if answered < u32::from(entries) {
                assert!(shared.to_server.take(), "an entry is published, the front end sleeps, no doorbell rang");
                pass(&mut front);
            }
            assert_eq!(client.look(), Ok(u32::from(entries)));
            for ahead in 0..u32::from(entries) {
                let done = Completion::decode(&client.peek(ahead)).expect("a completion");
                assert_eq!((u32::from(done.tag), done.status), (ahead, Status::NotFound));
            }
            client.consume(u32::from(entries));
            drop((front, client));
            // SAFETY: the client's thread is joined, front end and client are gone.
            unsafe {
                ground.clear();
                drop(lent.take_back());
            }
        });
    }
}
