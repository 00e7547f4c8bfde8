//! Connects, those that succeed and those that fail, leave no file descriptor and no memory behind. One test in a
//! process of its own: what is counted is the process's.
mod back_end;

use back_end::ends;
use back_end::ground::{BLOCK, Block, Ground, one, wishes};
use back_end::qsd::Qsd;
use back_end::script::{Quirk, REPLY_ACK, Script, Scripted};
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::request::{Lba, Request};
use native::vhost_user::{Connection, Options, SessionError};
use std::path::Path;
use std::time::Duration;

/// Connects of each kind.
const TIMES: usize = 100;
/// Connects before the first count: what the allocator and the threads keep is there then.
const WARM_UP: usize = 10;
/// What a leak of one page a connect would exceed, and chance does not: the program's own mappings.
const SLACK_MAPPINGS: usize = 8;
/// Far less than one ground, 1 MiB, or one thread's stack, 2 MiB, a connect.
const SLACK_KIB: usize = 32 << 10;

/// File descriptors, mappings, and KiB of address space of this process.
fn count() -> (usize, usize, usize) {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mappings = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    (files, mappings, size.split_whitespace().next().unwrap().parse().unwrap())
}

/// One life: connect, bring up, read if there is somebody to answer, stop.
fn live(path: &Path, patience: Duration, reads: bool) -> Result<(), SessionError> {
    let mut ground = Ground::new();
    let options = Options { patience, vectors: 3, ..Options::default() };
    let (connection, transport) = Connection::open(path, &ground.memory, options)?;
    let platform = connection.platform().unwrap();
    let mut rig = ground.start(&connection, transport, &platform, &wishes(2, CompletionMode::Interrupt, patience))?;
    if reads {
        let block = Block::new(rig.memory, BLOCK);
        assert_eq!(one(&mut rig.queues[0], Request::read(Lba(0), block)).0, Ok(()));
    }
    rig.session.stop(&platform)
}

/// Runs `connect` many times and compares the counts before and after.
fn leaves_nothing(what: &str, connect: impl Fn()) {
    (0..WARM_UP).for_each(|_| connect());
    let (files, mappings, size) = count();
    (0..TIMES).for_each(|_| connect());
    let after = count();
    assert_eq!(after.0, files, "{what}: file descriptors");
    assert!(after.1 <= mappings + SLACK_MAPPINGS, "{what}: {} mappings, {mappings} before", after.1);
    assert!(after.2 <= size + SLACK_KIB, "{what}: {} KiB, {size} before", after.2);
}

#[test]
fn a_hundred_connects_of_each_kind_leave_no_file_descriptor_and_no_memory_behind() {
    // SAFETY: no other thread allocates yet. One arena: those that the allocator makes for threads are no leak, and large.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    ends(|| {
        const LONG: Duration = Duration::from_mins(1);
        const SHORT: Duration = Duration::from_millis(10);
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("socket");
        leaves_nothing("no socket", || assert!(live(&missing, LONG, false).is_err()));

        let back_end = Scripted::start(Script::plain());
        let path = back_end.path();
        leaves_nothing("success", || {
            assert_eq!(live(&path, LONG, false), Ok(()));
            back_end.wait_for_end();
        });

        let scripts = [
            ("garbage", LONG, Script::plain().with_quirk(Quirk::Garbage)),
            ("closed at once", LONG, Script::plain().with_quirk(Quirk::CloseAt(1))),
            ("closed in the middle", LONG, Script::plain().with_quirk(Quirk::CloseAt(12))),
            ("closed at the end", LONG, Script::plain().with_quirk(Quirk::CloseAt(16))),
            ("stalled", SHORT, Script::plain().with_quirk(Quirk::StallAt(1))),
            ("stalled in the middle", SHORT, Script::plain().with_quirk(Quirk::StallAt(12))),
            ("no CONFIG", LONG, Script { protocol: REPLY_ACK, ..Script::plain() }),
            ("short configuration", LONG, Script { config: vec![0; 4], ..Script::plain() }),
        ];
        for (what, patience, script) in scripts {
            back_end.change(script);
            leaves_nothing(what, || {
                assert!(live(&path, patience, false).is_err(), "{what}");
                back_end.wait_for_end();
            });
        }

        if let Some(qsd) = Qsd::null(2, 0) {
            leaves_nothing("qemu-storage-daemon", || assert_eq!(live(&qsd.path(), LONG, true), Ok(())));
        }
    });
}
