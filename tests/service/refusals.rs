//! Calls that are refused, each with its class, with nothing else affected.
use crate::fake::wire::features;
use crate::fake::{Config, ResetBehaviour};
use crate::rig::{
    ALL, CREDIT, Ground, Peer, Private, Tested, ask, driver, envelope, open, opening, read, tell, with_memory, write,
};
use drv_virtio_block::lib_block::front_end::Access;
use drv_virtio_block::lib_block::message::SessionId;
use drv_virtio_block::lib_block::message::{Answer, BYTES, Body, Call, Capability, Extent, Given, Opening, Rights};
use drv_virtio_block::lib_block::{Status, VERSION};
use drv_virtio_block::service::Beside;
use proptest::prelude::*;

const READ: Body = Body::Read { lba: 0, blocks: 8 };

fn answer(service: &mut Tested<'_>, bytes: &[u8]) -> Answer {
    Answer::decode(&service.handle(bytes, Beside::default())).expect("an answer")
}

#[test]
fn what_is_no_call_is_answered_with_its_cookie() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let good = Call { session: SessionId(0), cookie: 0x0807_0605_0403_0201, body: Body::ReadDriver }.encode();
    let mut cases = vec![(vec![], Status::InvalidArgument, 0), (good[..15].to_vec(), Status::InvalidArgument, 0)];
    cases.push((good[..BYTES - 1].to_vec(), Status::InvalidArgument, 0x0807_0605_0403_0201));
    let spoilt = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        bytes
    };
    for (at, byte, status) in [
        (0, 2, Status::Unsupported),
        (1, 1, Status::Unsupported),
        (2, 0, Status::Unsupported),
        (3, 1, Status::Unsupported),
        (4, 1, Status::InvalidArgument),
        (16, 1, Status::InvalidArgument),
        (BYTES - 1, 0x80, Status::InvalidArgument),
    ] {
        cases.push((spoilt(at, byte), status, 0x0807_0605_0403_0201));
    }
    for (bytes, status, cookie) in cases {
        assert_eq!(answer(&mut service, &bytes), Answer { cookie, result: Err(status) }, "{bytes:?}");
    }
    assert!(driver(&mut service).serving);
}

#[test]
fn sessions_are_opened_with_what_can_be() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let capability = |first, blocks| Capability::new(Rights::ALL, &[Extent { first, blocks }]).unwrap();
    let good = opening(0, 64);
    let cases = [
        (Opening { version: VERSION + 1, ..good }, Status::Unsupported),
        (Opening { credit: 2 * CREDIT, ..good }, Status::InvalidArgument),
        (Opening { credit: CREDIT / 2, ..good }, Status::InvalidArgument),
        (Opening { credit: 0, ..good }, Status::InvalidArgument),
        (Opening { weight: 0, ..good }, Status::InvalidArgument),
        (Opening { weight: 65, ..good }, Status::InvalidArgument),
        (Opening { capability: capability(0, 2049), ..good }, Status::OutOfRange),
        (Opening { capability: capability(2048, 1), ..good }, Status::OutOfRange),
    ];
    for (opening, status) in cases {
        let beside = Beside { rings: Some(ground.rings(0)), ..Beside::default() };
        assert_eq!(ask(&mut service, SessionId(0), Body::Open(opening), beside), Err(status), "{opening:?}");
    }
    assert_eq!(tell(&mut service, Body::Open(good)), Err(Status::InvalidArgument), "without rings");
    let known = [(ALL, ground.all()), (ALL, ground.all())].into_iter().collect();
    let beside = Beside { rings: Some(ground.rings(0)), known, ..Beside::default() };
    assert_eq!(ask(&mut service, SessionId(0), Body::Open(good), beside), Err(Status::Busy), "one number twice");
    assert_eq!(driver(&mut service).sessions, 0);
    for seat in 0..4 {
        open(&mut service, &ground, seat, good);
    }
    let beside = Beside { rings: Some(ground.rings(4)), ..Beside::default() };
    assert_eq!(ask(&mut service, SessionId(0), Body::Open(good), beside), Err(Status::Busy), "four are all");
    assert_eq!(driver(&mut service).sessions, 4);
}

#[test]
fn calls_within_a_session_are_held_against_it() {
    let ground = Ground::new(Config { capacity_sectors: 8192, ..Config::default() });
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let id = Peer::new(&mut service, &ground, 0, opening(0, 4096)).opened.session;
    let readable = || ground.grant(0, 1, Access::Read);
    let writable = || ground.grant(0, 1, Access::ReadWrite);
    let read = |lba, blocks| Body::Read { lba, blocks };
    let write = |lba, blocks| Body::Write { lba, blocks, fua: false };
    let cases = [
        (read(0, 8), readable(), Status::InvalidArgument),
        (read(0, 9), writable(), Status::InvalidArgument),
        (read(0, 0), writable(), Status::InvalidArgument),
        (read(0, 2049), ground.all(), Status::InvalidArgument),
        (read(0, u32::MAX), ground.all(), Status::InvalidArgument),
        (read(4089, 8), writable(), Status::OutOfRange),
        (read(u64::MAX, 8), writable(), Status::OutOfRange),
        (read(u64::MAX - 6, 8), writable(), Status::OutOfRange),
        (write(4096, 1), readable(), Status::OutOfRange),
        (write(0, 0), readable(), Status::InvalidArgument),
    ];
    for (body, grant, status) in cases {
        assert_eq!(with_memory(&mut service, id, body, grant), Err(status), "{body:?}");
    }
    assert_eq!(ask(&mut service, id, READ, Beside::default()), Err(Status::InvalidArgument), "without a buffer");
    assert_eq!(ask(&mut service, id, Body::Register, Beside::default()), Err(Status::InvalidArgument));
    let none = ground.grant(0, 0, Access::ReadWrite);
    assert_eq!(with_memory(&mut service, id, Body::Register, none), Err(Status::InvalidArgument));
    assert_eq!(ground.device.counts(0).taken, 1, "the device saw GET ID only");
    assert_eq!(with_memory(&mut service, id, READ, writable()), Ok(Given::Moved(4096)));
}

#[test]
fn rights_hold_for_calls() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let with = |rights| Opening {
        capability: Capability::new(rights, &[Extent { first: 0, blocks: 64 }]).unwrap(),
        ..opening(0, 64)
    };
    let (reader, writer) = (with(Rights::READ), with(Rights::WRITE.with(Rights::FLUSH)));
    let reader = Peer::new(&mut service, &ground, 0, reader).opened.session;
    let writer = Peer::new(&mut service, &ground, 1, writer).opened.session;
    let grant = || ground.grant(0, 1, Access::ReadWrite);
    let write = Body::Write { lba: 0, blocks: 8, fua: true };
    assert_eq!(with_memory(&mut service, reader, write, grant()), Err(Status::Denied));
    assert_eq!(with_memory(&mut service, reader, READ, grant()), Ok(Given::Moved(4096)));
    assert_eq!(ask(&mut service, reader, Body::Flush, Beside::default()), Err(Status::Denied));
    assert_eq!(with_memory(&mut service, writer, READ, grant()), Err(Status::Denied));
    assert_eq!(with_memory(&mut service, writer, write, grant()), Ok(Given::Moved(4096)));
    assert_eq!(ask(&mut service, writer, Body::Flush, Beside::default()), Ok(Given::Moved(0)));
}

#[test]
fn a_read_only_medium_is_said_to_be_one() {
    let ground = Ground::new(Config::default().with(features::RO));
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let id = Peer::new(&mut service, &ground, 0, opening(0, 64)).opened.session;
    let write = Body::Write { lba: 0, blocks: 8, fua: false };
    assert_eq!(with_memory(&mut service, id, write, ground.grant(0, 1, Access::Read)), Err(Status::ReadOnly));
    ground.device.assert_no_faults();
}

#[test]
fn a_session_that_is_not_there_is_not_found() {
    let ground = Ground::new(Config { num_queues: 2, vectors: 3, ..Config::default() });
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let id = Peer::new(&mut service, &ground, 0, opening(0, 64)).opened.session;
    let grant = || ground.grant(0, 1, Access::ReadWrite);
    for other in [0, 1, 0x1_0001, 0x1_0004, 0x1_0100, 0x2_0000, 0x1_ff00, u32::MAX].map(SessionId) {
        assert_ne!(other, id);
        for body in [Body::GetInfo, READ, Body::Flush, Body::Close, Body::Register, Body::Unregister { memory: ALL }] {
            assert_eq!(with_memory(&mut service, other, body, grant()), Err(Status::NotFound), "{other:?} {body:?}");
        }
    }
}

#[test]
fn a_session_whose_client_does_not_go_along_has_no_calls() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let id = open(&mut service, &ground, 0, opening(0, 64)).session;
    let grant = || ground.grant(0, 1, Access::ReadWrite);
    assert_eq!(with_memory(&mut service, id, READ, grant()), Err(Status::Busy));
    assert!(ask(&mut service, id, Body::GetInfo, Beside::default()).is_ok());
    assert_eq!(ask(&mut service, id, Body::Close, Beside::default()), Ok(Given::Nothing));
    assert_eq!(driver(&mut service).sessions, 0);
}

#[test]
fn without_a_device_that_runs_every_call_is_answered() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.service(&mut private, envelope());
    let beside = || Beside {
        rings: Some(ground.rings(0)),
        memory: Some(ground.grant(0, 1, Access::ReadWrite)),
        ..Beside::default()
    };
    let open = Body::Open(opening(0, 64));
    let others = [Body::GetInfo, READ, Body::Flush, Body::Close, Body::Register, Body::Unregister { memory: ALL }];
    assert_eq!(ask(&mut service, SessionId(0), open, beside()), Err(Status::Gone));
    for body in others {
        assert_eq!(ask(&mut service, SessionId(0x1_0000), body, beside()), Err(Status::NotFound), "before: {body:?}");
    }
    assert_eq!(service.start(), Ok(()));
    assert_eq!(service.stop(true), Ok(()));
    assert_eq!(ask(&mut service, SessionId(0), open, beside()), Err(Status::Gone));
    for body in others {
        let found = ask(&mut service, SessionId(0x1_0000), body, beside());
        assert!(matches!(found, Err(Status::NotFound | Status::Gone)), "stopped: {body:?} {found:?}");
    }
}

#[test]
fn a_device_that_never_answers_the_reset_keeps_what_it_has() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    let id = peer.opened.session;
    ground.device.put_disk(0, &crate::rig::pattern(5, 4096));
    ground.desk.while_relaxing(|| ());
    ground.device.on_reset(ResetBehaviour::Never);
    peer.submit(&[read(0, 0, 0)]);
    service.pass();
    let grant = || ground.grant(1, 1, Access::ReadWrite);
    assert_eq!(with_memory(&mut service, id, READ, grant()), Err(Status::Busy), "the buffer stays lent");
    assert!(!service.is_serving());
    peer.submit(&[write(1, 100, 2)]);
    for _ in 0..3 {
        assert_eq!(service.pass(), 0);
    }
    let published = ground.device.counts(0).published;
    assert_eq!(with_memory(&mut service, id, READ, ground.grant(2, 1, Access::ReadWrite)), Err(Status::Gone));
    assert_eq!(ask(&mut service, id, Body::Close, Beside::default()), Err(Status::Busy));
    assert_eq!(tell(&mut service, Body::Stop { flush: true }), Err(Status::Busy));
    assert_eq!(tell(&mut service, Body::Start), Err(Status::IoError));
    assert!(service.recover().is_err());
    // The device, which still runs, does what it was asked long ago.
    ground.device.process_all(0);
    service.pass();
    assert_eq!(ground.bytes(1, 4096), crate::rig::pattern(5, 4096));
    assert_eq!(peer.answers(), [], "nothing is handed back");
    assert_eq!(ground.device.counts(0).published, published, "nothing more is asked");
    assert_eq!(driver(&mut service).sessions, 1);
    // Once it answers, what it had comes back, and the session ends as it was asked to.
    ground.device.on_reset(ResetBehaviour::AtOnce);
    ground.serve_while_relaxing();
    assert_eq!(tell(&mut service, Body::Start), Ok(Given::Nothing));
    service.pass();
    assert_eq!(peer.answers(), [(0, Status::Reset)]);
    assert_eq!(driver(&mut service).sessions, 0);
    ground.device.assert_no_faults();
}

#[test]
fn what_an_abandoned_call_came_to_is_not_the_next_ones() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let id = Peer::new(&mut service, &ground, 0, opening(0, 512)).opened.session;
    let grant = || ground.grant(1, 1, Access::ReadWrite);
    ground.desk.while_relaxing(|| ());
    ground.device.on_reset(ResetBehaviour::Never);
    assert_eq!(with_memory(&mut service, id, READ, grant()), Err(Status::Busy));
    ground.device.on_reset(ResetBehaviour::AtOnce);
    ground.serve_while_relaxing();
    assert_eq!(service.start(), Ok(()));
    let write = Body::Write { lba: 8, blocks: 8, fua: false };
    assert_eq!(with_memory(&mut service, id, write, grant()), Ok(Given::Moved(4096)));
    ground.device.assert_no_faults();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_answered(calls in prop::collection::vec((0..40_u16, prop::collection::vec(any::<u8>(), 0..24)), 1..30)) {
        let ground = Ground::new(Config::default());
        let mut private = Private::new();
        let mut service = ground.started(&mut private);
        let id = Peer::new(&mut service, &ground, 0, opening(0, 512)).opened.session;
        for (operation, bytes) in calls {
            let mut message = Call { session: id, cookie: 1, body: Body::GetInfo }.encode();
            message[2..4].copy_from_slice(&operation.to_le_bytes());
            if operation > 19 || operation == 16 {
                message[4..8].fill(0);
            }
            message[16..16 + bytes.len()].copy_from_slice(&bytes);
            let beside = Beside { rings: Some(ground.rings(1)), memory: Some(ground.grant(0, 4, Access::ReadWrite)), ..Beside::default() };
            prop_assert!(Answer::decode(&service.handle(&message, beside)).is_ok());
            service.pass();
        }
        ground.device.assert_no_faults();
    }
}
