//! The synchronous calls, beside the session's ring.
use crate::fake::Config;
use crate::rig::{Rig, World, opening, pattern};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::front_end::Access;
use drv_virtio_block::lib_block::message::{Body, Given, Rights, SessionId};

fn outcome(rig: &mut Rig<'_>, id: SessionId) -> Result<Given, Status> {
    rig.settle();
    rig.front.call_outcome(id).expect("an outcome")
}

#[test]
fn calls_write_read_and_flush_with_the_memory_beside_them() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.put(8192, &pattern(1, 4096));
    rig.front
        .begin_call(
            client.id,
            &Body::Write { lba: 4, blocks: 8, fua: true },
            Some(rig.grant(0, 8192, 4096, Access::Read)),
        )
        .unwrap();
    assert_eq!(outcome(&mut rig, client.id), Ok(Given::Moved(4096)));
    rig.device.power_cut();
    assert_eq!(rig.device.disk(4, 8), pattern(1, 4096));
    client.put(8192, &[0; 4096]);
    rig.front
        .begin_call(client.id, &Body::Read { lba: 4, blocks: 8 }, Some(rig.grant(0, 8192, 4096, Access::ReadWrite)))
        .unwrap();
    assert_eq!(rig.front.begin_call(client.id, &Body::Flush, None), Err(Status::Busy), "one at a time");
    assert_eq!(outcome(&mut rig, client.id), Ok(Given::Moved(4096)));
    assert_eq!(rig.front.call_outcome(client.id), None, "told once");
    assert_eq!(client.get(8192, 4096), pattern(1, 4096));
    rig.front.begin_call(client.id, &Body::Flush, None).unwrap();
    assert_eq!(outcome(&mut rig, client.id), Ok(Given::Moved(0)));
    assert_eq!(client.take(), [], "nothing of it is in the ring");
    rig.device.assert_no_faults();
}

#[test]
fn calls_are_refused_like_entries() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let client = rig.open(0, &opening(16, Rights::READ, &[(10, 10)]));
    let (small, readable) = (Some((511, Access::ReadWrite)), Some((4096, Access::Read)));
    let enough = Some((4096, Access::ReadWrite));
    let read = |lba, blocks| Body::Read { lba, blocks };
    let cases = [
        (read(0, 1), None, Status::InvalidArgument),
        (read(0, 1), small, Status::InvalidArgument),
        (read(0, 1), readable, Status::InvalidArgument),
        (read(0, 0), enough, Status::InvalidArgument),
        (read(0, 9), enough, Status::InvalidArgument),
        (read(0, u32::MAX), enough, Status::InvalidArgument),
        (read(10, 1), enough, Status::OutOfRange),
        (read(u64::MAX, 1), enough, Status::OutOfRange),
        (Body::Write { lba: 0, blocks: 1, fua: false }, enough, Status::Denied),
        (Body::Flush, None, Status::Denied),
        (Body::Close, None, Status::InvalidArgument),
    ];
    for (body, grant, status) in cases {
        let grant = grant.map(|(len, access)| rig.grant(0, 0, len, access));
        assert_eq!(rig.front.begin_call(client.id, &body, grant), Err(status), "{body:?}");
    }
    assert_eq!(rig.front.begin_call(SessionId(0), &Body::Flush, None), Err(Status::NotFound));
    assert_eq!(rig.front.begin_call(SessionId(client.id.0 + (1 << 16)), &Body::Flush, None), Err(Status::NotFound));
    assert_eq!(rig.front.begin_call(SessionId(client.id.0 | 0x4d), &Body::Flush, None), Err(Status::NotFound));
    rig.settle();
    assert_eq!(rig.front.call_outcome(client.id), None);
    rig.front.begin_call(client.id, &read(0, 1), Some(rig.grant(0, 0, 512, Access::ReadWrite))).unwrap();
    assert_eq!(outcome(&mut rig, client.id), Ok(Given::Moved(512)));
}

#[test]
fn a_call_in_flight_keeps_the_session_and_takes_no_tag() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 4);
    rig.front
        .begin_call(client.id, &Body::Read { lba: 0, blocks: 1 }, Some(rig.grant(0, 0, 4096, Access::ReadWrite)))
        .unwrap();
    rig.serve();
    let call = rig.device.take(0, 99);
    assert_eq!(call.len(), 1);
    let all = [0, 1, 2, 3].map(|tag| client.read(tag, 8, 1, 4096 + 512 * u64::from(tag)));
    client.submit(&all);
    rig.settle();
    assert_eq!(client.ends().len(), 3, "the call has the place of one");
    rig.front.close(client.id).unwrap();
    rig.serve();
    assert!(rig.front.is_open(client.id));
    rig.device.complete(0, &call);
    rig.serve();
    assert!(!rig.front.is_open(client.id));
}

#[test]
fn a_call_that_waits_when_the_session_ends_is_gone() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let client = rig.client(0, 4);
    rig.front.begin_call(client.id, &Body::Flush, None).unwrap();
    rig.front.close(client.id).unwrap();
    assert_eq!(rig.front.call_outcome(client.id), Some(Err(Status::Gone)));
    rig.serve();
    assert!(!rig.front.is_open(client.id));
}

#[test]
fn a_session_that_ends_takes_no_call_and_so_it_does_end() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 4);
    client.submit(&[client.read(0, 0, 1, 0)]);
    rig.serve();
    rig.front.close(client.id).unwrap();
    assert_eq!(rig.front.begin_call(client.id, &Body::Flush, None), Err(Status::Gone));
    rig.settle();
    assert!(!rig.front.is_open(client.id));
}
