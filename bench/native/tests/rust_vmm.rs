//! The rust-vmm device behind its socket: clients that come, go and talk nonsense. Round trips are with the peer's tests.
use native::rust_vmm::{Medium, Options, Server, Stop};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use vhost::VhostBackend;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};

struct Running {
    socket: PathBuf,
    stop: Stop,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    _directory: tempfile::TempDir,
}

impl Running {
    fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let server = Server::bind(&socket, Medium::ram(2048).unwrap(), options).unwrap();
        let stop = Stop::new().unwrap();
        let inside = stop.clone();
        let thread = Some(std::thread::spawn(move || server.run(&inside)));
        Self { socket, stop, thread, _directory: directory }
    }

    fn finish(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("no error");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Shakes hands, and returns features and queues.
fn greet(socket: &Path) -> (Frontend, u64, u64) {
    let mut client = Frontend::connect(socket, 4).unwrap();
    client.set_owner().unwrap();
    let features = client.get_features().unwrap();
    client.set_features(features).unwrap();
    let protocol = client.get_protocol_features().unwrap();
    client
        .set_protocol_features(protocol & (VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG))
        .unwrap();
    let queues = client.get_queue_num().unwrap();
    (client, features, queues)
}

#[test]
fn one_client_after_the_other_is_served() {
    use drv_virtio_block::spec::feature;
    let running = Running::new(Options { queues: 3, ..Options::default() });
    for _ in 0..20 {
        let (_client, features, queues) = greet(&running.socket);
        let wanted = feature::VERSION_1 | feature::MQ | feature::EVENT_IDX | feature::INDIRECT_DESC | feature::FLUSH;
        assert_eq!((features & wanted, queues, features & feature::RO), (wanted, 3, 0));
    }
}

#[test]
fn a_client_that_talks_nonsense_is_the_only_one_to_suffer() {
    let running = Running::new(Options::default());
    for (bytes, hang_up) in
        [(&b"GET / HTTP/1.1\r\n\r\n"[..], false), (&[0xff; 4096], false), (&[1, 0, 0], true), (&[], true)]
    {
        let mut client = UnixStream::connect(&running.socket).unwrap();
        client.write_all(bytes).unwrap();
        if hang_up {
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        // The server hangs up, with or without having said something.
        let _ = client.read_to_end(&mut Vec::new());
        assert_eq!(greet(&running.socket).2, 1, "after {} bytes", bytes.len());
    }
}

#[test]
fn a_server_stops_with_a_client_and_without() {
    Running::new(Options::default()).finish();
    let mut running = Running::new(Options::default());
    let (client, ..) = greet(&running.socket);
    running.finish();
    assert!(client.get_features().is_err(), "the connection is closed");
}

#[test]
fn a_stop_that_was_said_before_is_heeded() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let stop = Stop::new().unwrap();
    stop.stop();
    native::rust_vmm::serve(&socket, Medium::ram(1).unwrap(), Options::default(), &stop).unwrap();
}

#[test]
fn a_socket_that_cannot_be_made_is_an_error() {
    let gone = Path::new("/no/such/directory/socket");
    assert!(Server::bind(gone, Medium::ram(1).unwrap(), Options::default()).is_err());
    let directory = tempfile::tempdir().unwrap();
    let options = Options { queues: 0, ..Options::default() };
    assert!(Server::bind(&directory.path().join("s"), Medium::ram(1).unwrap(), options).is_err());
}

#[test]
fn a_file_is_a_medium_of_whole_sectors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    std::fs::write(&path, vec![0; 5 * 512 + 100]).unwrap();
    assert_eq!(Medium::file(&path, true).unwrap().sectors(), 5);
    assert!(Medium::file(&directory.path().join("none"), true).is_err());
}
