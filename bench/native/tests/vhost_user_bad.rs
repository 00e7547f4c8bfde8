//! Back-ends that are absent, are something else, stall, close, lie: each a clear error in bounded time.
mod back_end;

use back_end::ends;
use back_end::ground::{BLOCK, Block, Ground, wishes};
use back_end::script::{CONFIG, PROTOCOL_FEATURES, Quirk, REPLY_ACK, Script, Scripted, message};
use drv_virtio_block::device::{BringUpError, ConfigError};
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::platform::Platform;
use drv_virtio_block::queue::Violation;
use drv_virtio_block::request::{Error, Gone, Lba, Refusal, Request};
use drv_virtio_block::spec::feature;
use drv_virtio_block::transport::TransportError;
use native::vhost_user::{ConnectError, Connection, Fault, OnLoss, Options, SessionError};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// For back-ends that stall.
const SHORT: Duration = Duration::from_millis(200);
/// For those that do not: never reached.
const LONG: Duration = Duration::from_mins(1);

fn options(patience: Duration) -> Options {
    Options { patience, ..Options::default() }
}

fn open(path: &Path, patience: Duration) -> Result<(), ConnectError> {
    Connection::open(path, &Ground::new().memory, options(patience)).map(drop)
}

fn fault(why: &ConnectError) -> Option<Fault> {
    if let ConnectError::Control(why) = why { Some(why.fault) } else { None }
}

/// Connects and brings up; the error of either.
fn bring_up(path: &Path, patience: Duration) -> Result<(), SessionError> {
    let mut ground = Ground::new();
    let (connection, transport) = Connection::open(path, &ground.memory, options(patience))?;
    let platform = connection.platform().unwrap();
    let wishes = wishes(1, CompletionMode::Interrupt, patience);
    let mut rig = ground.start(&connection, transport, &platform, &wishes)?;
    rig.session.stop(&platform)
}

/// How many messages a set-up without any quirk takes, up to the moment that the device runs.
fn messages_of_a_set_up(script: Script) -> usize {
    let back_end = Scripted::start(script);
    bring_up(&back_end.path(), LONG).unwrap();
    back_end.log.iter().take_while(|message| *message != message::GET_VRING_BASE).count()
}

#[test]
fn a_missing_socket_and_what_is_no_socket_are_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    assert_eq!(open(&path, LONG), Err(ConnectError::NoSocket(path.clone())));
    std::fs::write(&path, b"no socket").unwrap();
    assert_eq!(open(&path, LONG), Err(ConnectError::NotASocket(path.clone())));
    std::fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let why = open(&path, LONG).unwrap_err();
    assert_eq!(why, ConnectError::NobodyListens(path.clone()));
    assert!(why.to_string().contains("nobody listens"));
}

#[test]
fn waiting_for_a_back_end_ends_when_it_comes_and_when_the_time_is_over() {
    ends(|| {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let memory = Ground::new().memory;
        let none = Connection::open_within(&path, &memory, options(LONG), SHORT).map(drop);
        assert_eq!(none, Err(ConnectError::NoSocket(path.clone())));
        let waiting =
            std::thread::spawn(move || Connection::open_within(&path, &memory, options(LONG), LONG).map(drop));
        let back_end = Scripted::start(Script::plain());
        std::fs::rename(back_end.path(), place.path().join("socket")).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(()));
        std::fs::rename(place.path().join("socket"), back_end.path()).unwrap();
    });
}

#[test]
fn what_does_not_speak_vhost_user_is_told_so() {
    ends(|| {
        let back_end = Scripted::start(Script::plain().with_quirk(Quirk::Garbage));
        let why = open(&back_end.path(), LONG).unwrap_err();
        assert_eq!(fault(&why), Some(Fault::Garbage));
        assert!(why.to_string().contains("not vhost-user"), "{why}");
    });
}

#[test]
fn a_listener_that_never_answers_or_never_accepts_is_given_up_in_time() {
    ends(|| {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let backlog = nix::sys::socket::Backlog::new(1).unwrap();
        nix::sys::socket::listen(&listener, backlog).unwrap();
        // Connections that nobody accepts fill the backlog, until connecting itself stalls.
        let stalls: Vec<_> = (0..4).map(|_| open(&path, SHORT).unwrap_err()).collect();
        assert!(stalls.iter().all(|why| fault(why) == Some(Fault::Stalled(SHORT))), "{stalls:?}");
        assert!(stalls[0].to_string().contains("GET_FEATURES"), "{}", stalls[0]);
        assert!(stalls[3].to_string().contains("connect"), "{}", stalls[3]);
    });
}

#[test]
fn a_back_end_without_what_is_needed_is_refused() {
    ends(|| {
        let cases = [
            (Script { features: 1 << 32, ..Script::plain() }, ConnectError::NoProtocolFeatures),
            (Script { protocol: REPLY_ACK, ..Script::plain() }, ConnectError::NoConfig),
            (Script { config: vec![0; 7], ..Script::plain() }, ConnectError::ConfigTooShort(0)),
        ];
        for (script, why) in cases {
            let back_end = Scripted::start(script);
            assert_eq!(open(&back_end.path(), LONG), Err(why));
        }
        let back_end = Scripted::start(Script { features: PROTOCOL_FEATURES, ..Script::plain() });
        let why = bring_up(&back_end.path(), LONG).unwrap_err();
        assert_eq!(why, SessionError::Device(BringUpError::Legacy, None));
        assert!(why.to_string().contains("VERSION_1"));
    });
}

#[test]
fn a_configuration_space_shorter_than_a_feature_needs_is_refused_and_else_it_does() {
    ends(|| {
        let short = Script { config: Script::plain().config[..36].to_vec(), ..Script::plain() };
        let back_end = Scripted::start(short.clone());
        assert_eq!(bring_up(&back_end.path(), LONG), Ok(()));
        back_end.change(Script { features: short.features | feature::DISCARD, ..short });
        let why = bring_up(&back_end.path(), LONG).unwrap_err();
        let missing = BringUpError::Transport(TransportError::NoSuchField { offset: 36 });
        assert_eq!(why, SessionError::Device(missing, None));
        assert!(why.to_string().contains("no field at offset 36"));
    });
}

#[test]
fn a_configuration_that_never_rests_is_the_back_ends_fault() {
    ends(|| {
        let back_end = Scripted::start(Script::plain().with_quirk(Quirk::Restless));
        let why = bring_up(&back_end.path(), LONG).unwrap_err();
        assert_eq!(why, SessionError::Device(BringUpError::Config(ConfigError::Unstable), None));
    });
}

#[test]
fn size_max_of_0_is_no_limit_and_seg_max_of_0_is_1() {
    ends(|| {
        let script =
            Script { features: Script::plain().features | feature::SIZE_MAX | feature::SEG_MAX, ..Script::plain() };
        let back_end = Scripted::start(script);
        let mut ground = Ground::new();
        let (connection, transport) = ground.connect(&back_end.path(), options(LONG));
        let platform = connection.platform().unwrap();
        let wishes = wishes(1, CompletionMode::Interrupt, LONG);
        let mut rig = ground.start(&connection, transport, &platform, &wishes).unwrap();
        let geometry = rig.session.running().unwrap().geometry();
        assert_eq!((geometry.size_max, geometry.seg_max), (u32::MAX, 1));
        assert!(geometry.features.has(feature::SIZE_MAX | feature::SEG_MAX));
    });
}

/// Whatever fails on the way, connect or bring-up, is this fault of the back-end.
fn assert_fault(outcome: &Result<(), SessionError>, expected: Fault, at: usize) {
    let found = match outcome {
        Err(SessionError::Connect(ConnectError::Control(why)) | SessionError::Device(_, Some(why))) => Some(why.fault),
        _ => None,
    };
    assert_eq!(found, Some(expected), "at message {at}: {outcome:?}");
}

#[test]
fn a_back_end_that_closes_at_any_message_of_the_set_up_is_noticed() {
    ends(|| {
        for protocol in [CONFIG, CONFIG | REPLY_ACK] {
            let script = Script { protocol, ..Script::plain() };
            let count = messages_of_a_set_up(script.clone());
            assert!(count > 10, "{count}");
            let back_end = Scripted::start(script.clone());
            for at in 1..=count {
                back_end.change(script.clone().with_quirk(Quirk::CloseAt(at)));
                assert_fault(&bring_up(&back_end.path(), LONG), Fault::Closed, at);
            }
        }
    });
}

#[test]
fn a_back_end_that_stalls_at_any_message_of_the_set_up_is_given_up_in_time() {
    ends(|| {
        let count = messages_of_a_set_up(Script::plain());
        let back_end = Scripted::start(Script::plain());
        for at in 1..=count {
            back_end.change(Script::plain().with_quirk(Quirk::StallAt(at)));
            assert_fault(&bring_up(&back_end.path(), SHORT), Fault::Stalled(SHORT), at);
        }
    });
}

#[test]
fn a_message_that_the_back_end_rejects_ends_the_set_up() {
    ends(|| {
        let back_end = Scripted::start(Script::plain());
        bring_up(&back_end.path(), LONG).unwrap();
        let at = 1 + back_end.log.iter().take_while(|message| *message != message::SET_MEM_TABLE).count();
        back_end.change(Script::plain().with_quirk(Quirk::RejectAt(at)));
        assert_fault(&bring_up(&back_end.path(), LONG), Fault::Rejected, at);
    });
}

#[test]
fn a_used_index_too_far_ahead_breaks_the_queue_and_the_memory_comes_back() {
    ends(|| {
        let back_end = Scripted::start(Script::plain().with_quirk(Quirk::UsedIndex(5)));
        let mut ground = Ground::new();
        let (connection, transport) = ground.connect(&back_end.path(), options(SHORT));
        let platform = connection.platform().unwrap();
        let wishes = wishes(1, CompletionMode::Interrupt, LONG);
        let mut rig = ground.start(&connection, transport, &platform, &wishes).unwrap();
        let request = Request::read(Lba(0), Block::new(rig.memory, BLOCK));
        assert!(rig.queues[0].submit(request).is_ok());
        assert_eq!(rig.queues[0].reap(8, drop), 0);
        assert_eq!(rig.queues[0].broken(), Some(Violation::IndexJump));
        let refused = rig.queues[0].submit(Request::read(Lba(0), Block::new(rig.memory, BLOCK))).unwrap_err();
        assert_eq!(refused.why, Refusal::Broken);
        // The queue never drains: it says 5 and consumed 0. The connection is hung up instead, and the back-end closes.
        let mut failed = vec![];
        let parked = rig.session.park(&platform, &mut rig.queues, OnLoss::Fail, |_, lost| failed.push(lost.result));
        assert!(parked.is_ok());
        assert_eq!(failed, [Err(Error::Gone(Gone::Reset))]);
    });
}

#[test]
fn memory_stays_out_of_use_while_a_back_end_that_stalled_is_connected() {
    ends(|| {
        let at = 1 + messages_of_a_set_up(Script::plain());
        let back_end = Scripted::start(Script::plain().with_quirk(Quirk::StallAt(at)));
        let mut ground = Ground::new();
        let (connection, transport) = ground.connect(&back_end.path(), options(SHORT));
        let platform = connection.platform().unwrap();
        let wishes = wishes(1, CompletionMode::Interrupt, SHORT);
        let mut rig = ground.start(&connection, transport, &platform, &wishes).unwrap();
        // It does not answer GET_VRING_BASE, and it does not close either.
        let why = rig.session.stop(&platform).unwrap_err();
        assert!(matches!(why, SessionError::Device(BringUpError::ResetTimeout, Some(_))), "{why:?}");
        assert!(rig.session.proof().is_none());
        assert_eq!(connection.reconnect(), Err(ConnectError::NotReset));
        // Its end of the connection closes: that is the proof.
        back_end.close_stalled();
        platform.wait(Connection::HANG_UP.alone(), None);
        let parked = rig.session.park(&platform, &mut rig.queues, OnLoss::Fail, |_, _| ());
        assert!(parked.is_ok());
        back_end.change(Script::plain());
        assert!(parked.unwrap().resume(&mut rig.session, &platform, LONG).is_ok());
    });
}

#[test]
fn a_back_end_that_comes_back_as_another_device_is_refused_and_the_old_one_taken() {
    ends(|| {
        let at = 1 + messages_of_a_set_up(Script::plain());
        let back_end = Scripted::start(Script::plain().with_quirk(Quirk::CloseAt(at)));
        let mut ground = Ground::new();
        let (connection, transport) = ground.connect(&back_end.path(), options(LONG));
        let platform = connection.platform().unwrap();
        let wishes = wishes(1, CompletionMode::Interrupt, LONG);
        let mut rig = ground.start(&connection, transport, &platform, &wishes).unwrap();
        assert_eq!(connection.lost(), None);
        assert_eq!(connection.reconnect(), Err(ConnectError::NotReset));
        let mut parked = rig.session.park(&platform, &mut rig.queues, OnLoss::Fail, |_, _| ()).unwrap();
        assert_eq!(connection.lost().map(|why| why.fault), Some(Fault::Closed));
        back_end.change(Script { features: Script::plain().features | feature::RO, ..Script::plain() });
        let other = parked.resume(&mut rig.session, &platform, LONG).map(drop);
        assert_eq!(other, Err(SessionError::Changed));
        // The connection to the other device is there; hanging up is the way to the next.
        assert_eq!((connection.lost(), rig.session.stop(&platform)), (None, Ok(())));
        connection.hang_up();
        assert_eq!(connection.lost().map(|why| why.fault), Some(Fault::Ended));
        back_end.change(Script::plain());
        assert!(parked.resume(&mut rig.session, &platform, LONG).is_ok());
        connection.hang_up();
    });
}
