//! The peer against the minimal device, and against rust-vmm's: round trips, so that what is compared works.
use super::blkio::{self, BlkioQueue};
use super::{Memory, PeerQueue, Setup, over_minimal, over_vhost_user};
use crate::embedded::minimal::{Data, Device, Options};
use crate::rust_vmm::{Medium, Server, Stop};
use drv_virtio_block::spec::feature;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// A shared mapping for buffers.
struct Shared {
    file: OwnedFd,
    base: *mut u8,
    len: usize,
}

impl Shared {
    fn new(len: usize) -> Self {
        use nix::sys::{memfd, mman};
        let name: &CStr = c"peer-buffers";
        let file = memfd::memfd_create(name, memfd::MFdFlags::empty()).unwrap();
        File::from(file.try_clone().unwrap()).set_len(len as u64).unwrap();
        let (size, all) = (len.try_into().unwrap(), mman::ProtFlags::PROT_READ | mman::ProtFlags::PROT_WRITE);
        // SAFETY: a fresh mapping, never unmapped: a test is short.
        let base = unsafe { mman::mmap(None, size, all, mman::MapFlags::MAP_SHARED, &file, 0) }.unwrap();
        Self { file, base: base.as_ptr().cast(), len }
    }

    fn memory(&self) -> Memory<'_> {
        Memory { base: self.base, len: self.len, file: self.file.as_fd(), offset: 0 }
    }

    fn page(&self, n: usize) -> *mut u8 {
        assert!((n + 1) * 4096 <= self.len);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(n * 4096) }
    }

    fn fill(&self, n: usize, byte: u8) {
        // SAFETY: inside the mapping, and not in flight when a test calls this.
        unsafe { self.page(n).write_bytes(byte, 4096) }
    }

    fn holds(&self, n: usize, byte: u8) -> bool {
        // SAFETY: as in `fill`.
        unsafe { std::slice::from_raw_parts(self.page(n), 4096) }.iter().all(|have| *have == byte)
    }
}

fn setup(queues: usize) -> Setup {
    let features = feature::VERSION_1 | feature::EVENT_IDX | feature::MQ | feature::FLUSH;
    Setup { queues, queue_size: 64, features: features | feature::DISCARD | feature::WRITE_ZEROES }
}

fn device(queues: u16) -> Device {
    let options = Options { data: Data::Ram, queues, ..Options::default() };
    // SAFETY: no regions yet; they come with the peer's set-up.
    unsafe { Device::new(options, &[], Vec::new()) }.unwrap()
}

fn connect(device: &Device, shared: &Shared, queues: usize) -> Vec<PeerQueue> {
    // SAFETY: the mapping is never unmapped.
    unsafe { over_minimal(device, &setup(queues), &[shared.memory()]) }.unwrap()
}

/// Reaps until `count` came, all of them good; returns the tokens in order.
fn reap(queue: &mut PeerQueue, count: usize, mut between: impl FnMut()) -> Vec<u64> {
    let mut tokens = Vec::new();
    while tokens.len() < count {
        between();
        queue.reap(count, |token, error| {
            assert_eq!(error, 0, "token {token}");
            tokens.push(token);
        });
    }
    tokens.sort_unstable();
    tokens
}

#[test]
fn batches_come_back_once_and_nobody_is_notified_across_the_wrap() {
    let (device, shared) = (device(1), Shared::new(32 * 4096));
    let mut queue = connect(&device, &shared, 1).remove(0);
    for round in 0..7000_u64 {
        for token in 0..10_u64 {
            let page = shared.page(token as usize);
            // SAFETY: a page of the mapping, back before it is used again.
            unsafe { queue.read((round * 10 + token) % 1000 * 4096, page, 4096, token) }.unwrap();
        }
        queue.notify().unwrap();
        assert_eq!(device.step(0), 10);
        assert_eq!(reap(&mut queue, 10, || ()), (0..10).collect::<Vec<_>>());
    }
    assert_eq!((queue.notifications(), device.counters(0).used), (0, 70_000));
}

#[test]
fn data_comes_back_from_a_spinning_device_on_several_queues() {
    let (device, shared) = (device(2), Shared::new(64 * 4096));
    let worker = device.spawn(vec![0, 1], None).unwrap();
    for mut queue in connect(&device, &shared, 2) {
        for n in 0..8 {
            shared.fill(n, n as u8 + 1);
            // SAFETY: pages of the mapping, one request each at a time.
            unsafe { queue.write(n as u64 * 4096, shared.page(n), 4096, n as u64) }.unwrap();
        }
        queue.notify().unwrap();
        reap(&mut queue, 8, std::thread::yield_now);
        queue.flush(99).unwrap();
        queue.discard(0, 4096, 100).unwrap();
        queue.write_zeroes(4096, 4096, false, 101).unwrap();
        queue.notify().unwrap();
        assert_eq!(reap(&mut queue, 3, std::thread::yield_now), [99, 100, 101]);
        for n in 0..8 {
            shared.fill(n + 8, 0xee);
            // SAFETY: as above.
            unsafe { queue.read(n as u64 * 4096, shared.page(n + 8), 4096, n as u64) }.unwrap();
        }
        queue.notify().unwrap();
        reap(&mut queue, 8, std::thread::yield_now);
        for n in 0..8 {
            assert!(shared.holds(n + 8, if n < 2 { 0 } else { n as u8 + 1 }), "page {n}");
        }
    }
    drop(worker);
}

#[test]
fn an_interrupt_comes_when_it_was_asked_for() {
    let (device, shared) = (device(1), Shared::new(4096));
    let mut queue = connect(&device, &shared, 1).remove(0);
    for round in 1..100 {
        queue.enable_interrupts(true);
        assert!(!queue.has_completions());
        queue.flush(round).unwrap();
        queue.notify().unwrap();
        assert_eq!((device.step(0), device.counters(0).interrupts), (1, round));
        queue.take_interrupt();
        assert_eq!(reap(&mut queue, 1, || ()), [round]);
    }
}

#[test]
fn errors_of_the_device_are_told() {
    let (device, shared) = (device(1), Shared::new(4096));
    let mut queue = connect(&device, &shared, 1).remove(0);
    // SAFETY: a page of the mapping.
    unsafe { queue.read(device.options().sectors * 512, shared.page(0), 4096, 7) }.unwrap();
    queue.notify().unwrap();
    device.step(0);
    let mut seen = Vec::new();
    queue.reap(9, |token, error| seen.push((token, error)));
    assert_eq!(seen, [(7, -(nix::errno::Errno::EIO as i32))]);
}

#[test]
fn a_peer_that_is_gone_leaves_the_device_to_the_next() {
    let (device, shared) = (device(1), Shared::new(4096));
    for _ in 0..3 {
        let worker = device.spawn(vec![0], None).unwrap();
        let mut queue = connect(&device, &shared, 1).remove(0);
        // SAFETY: never unmapped; refused before anything is touched.
        assert!(unsafe { over_minimal(&device, &setup(1), &[shared.memory()]) }.is_err(), "one at a time");
        queue.flush(1).unwrap();
        queue.notify().unwrap();
        reap(&mut queue, 1, std::thread::yield_now);
        queue.flush(2).unwrap();
        drop(queue);
        assert!(!device.is_driven(), "nothing of the peer's memory is known any more");
        drop(worker);
    }
}

/// Stops a server also when its client panics, since the server's scope waits for it.
struct Last<'s>(&'s Stop);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Serves a device to `client` from a thread of its own.
fn with_rust_vmm(queues: u16, client: impl FnOnce(&str)) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let options = crate::rust_vmm::Options { queues, ..crate::rust_vmm::Options::default() };
    let server = Server::bind(&socket, Medium::ram(4096).unwrap(), options).unwrap();
    let stop = Stop::new().unwrap();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.run(&stop));
        let last = Last(&stop);
        client(socket.to_str().unwrap());
        drop(last);
        serving.join().unwrap().unwrap();
    });
}

/// Waits for an interrupt, unless there is something to reap.
fn sleep(queue: &mut PeerQueue) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    queue.enable_interrupts(true);
    if !queue.has_completions() {
        poll(&mut [PollFd::new(queue.interrupt(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        queue.take_interrupt();
    }
}

#[test]
fn the_rust_vmm_device_serves_several_queues_that_sleep() {
    with_rust_vmm(3, |socket| {
        let shared = Shared::new(64 * 4096);
        // SAFETY: the mapping is never unmapped.
        let queues = unsafe { over_vhost_user(socket, &setup(3), &[shared.memory()]) }.unwrap();
        for (n, mut queue) in queues.into_iter().enumerate() {
            for round in 0..200 {
                let (page, byte, at) = (n * 8 + round % 8, (round + n) as u8, (n * 100 + round % 100) as u64 * 4096);
                shared.fill(page, byte);
                // SAFETY: pages of the mapping; one request at a time uses them.
                unsafe { queue.write(at, shared.page(page), 4096, 1) }.unwrap();
                queue.notify().unwrap();
                while queue.reap(1, |token, error| assert_eq!((token, error), (1, 0))) == 0 {
                    sleep(&mut queue);
                }
                shared.fill(page, !byte);
                // SAFETY: as above.
                unsafe { queue.read(at, shared.page(page), 4096, 2) }.unwrap();
                queue.flush(3).unwrap();
                queue.notify().unwrap();
                reap(&mut queue, 2, std::thread::yield_now);
                assert!(shared.holds(page, byte), "queue {n}, round {round}");
            }
        }
    });
}

#[test]
fn the_rust_vmm_device_takes_batches_across_the_wrap_and_keeps_its_data_between_clients() {
    with_rust_vmm(1, |socket| {
        let shared = Shared::new(32 * 4096);
        for client in 0..2 {
            // SAFETY: the mapping is never unmapped.
            let mut queue = unsafe { over_vhost_user(socket, &setup(1), &[shared.memory()]) }.unwrap().remove(0);
            if client == 0 {
                shared.fill(20, 0x77);
                // SAFETY: a page of the mapping that nothing else uses.
                unsafe { queue.write(0, shared.page(20), 4096, 0) }.unwrap();
                queue.write_zeroes(0, 1024, true, 1).unwrap();
                queue.notify().unwrap();
                reap(&mut queue, 2, std::thread::yield_now);
            }
            for _ in 0..3400 {
                for token in 0..20 {
                    // SAFETY: a page of the mapping for each token.
                    unsafe { queue.read(token * 4096, shared.page(token as usize), 4096, token) }.unwrap();
                }
                queue.notify().unwrap();
                assert_eq!(reap(&mut queue, 20, std::thread::yield_now), (0..20).collect::<Vec<_>>());
            }
            // SAFETY: nothing is in flight.
            let first = unsafe { std::slice::from_raw_parts(shared.page(0), 4096) };
            assert!(first[..1024].iter().all(|byte| *byte == 0) && first[1024..].iter().all(|byte| *byte == 0x77));
        }
    });
}

/// A queue of libblkio's to `device`.
fn libblkio(device: &Device, shared: &Shared, polled: bool) -> BlkioQueue {
    let setup = blkio::Setup { queues: 1, queue_size: 64, polled };
    // SAFETY: the mapping is never unmapped.
    unsafe { blkio::over_minimal(device, setup, &[shared.memory()]) }.unwrap().remove(0)
}

#[test]
fn libblkio_brings_data_back_and_takes_more_than_its_ring_has_room_for() {
    let (device, shared) = (device(1), Shared::new(64 * 4096));
    let worker = device.spawn(vec![0], None).unwrap();
    let mut queue = libblkio(&device, &shared, true);
    // More than 21 chains of three: the rest waits inside.
    for round in 0..400 {
        for n in 0..30 {
            shared.fill(n, (n + round) as u8);
            // SAFETY: pages of the mapping, one request each at a time.
            unsafe { queue.write(n as u64 * 4096, shared.page(n), 4096, n as u64) };
        }
        reap_all(&mut queue, 30);
        for n in 0..30 {
            shared.fill(n, !((n + round) as u8));
            // SAFETY: as above.
            unsafe { queue.read(n as u64 * 4096, shared.page(n), 4096, n as u64) };
        }
        reap_all(&mut queue, 30);
        assert!((0..30).all(|n| shared.holds(n, (n + round) as u8)), "round {round}");
    }
    drop(queue);
    assert!(!device.is_driven(), "nothing of libblkio's memory is known any more");
    drop(worker);
}

/// Hands the batch over and reaps until every one of `count` tokens came, in success.
fn reap_all(queue: &mut BlkioQueue, count: u64) {
    queue.flush_batch().unwrap();
    let mut tokens = Vec::new();
    while (tokens.len() as u64) < count {
        queue.reap(9, |token, error| tokens.push((token, error)));
        std::thread::yield_now();
    }
    tokens.sort_unstable();
    assert_eq!(tokens, (0..count).map(|token| (token, 0)).collect::<Vec<_>>());
}

#[test]
fn libblkio_is_interrupted_when_it_asked_and_never_on_a_poll_queue() {
    let shared = Shared::new(4096);
    for polled in [false, true] {
        let device = device(1);
        let mut queue = libblkio(&device, &shared, polled);
        let interrupt = queue.interrupt().unwrap();
        for round in 1..50 {
            if !polled {
                // Later rounds were armed at the end of the one before.
                assert_eq!(queue.arm(), round == 1, "look again first");
                assert_eq!(queue.reap(1, |_, _| ()), 0);
                assert!(!queue.arm(), "nothing came: wait");
            }
            queue.flush(round);
            queue.flush_batch().unwrap();
            assert_eq!(device.step(0), 1);
            assert_eq!(interrupt.take(), !polled, "round {round}");
            assert_eq!(queue.reap(1, |token, error| assert_eq!((token, error), (round, 0))), 1);
            if !polled {
                assert!(queue.arm(), "something came since: look again");
            }
        }
    }
}
