//! How much the minimal device can take: a bare ring without slots, checks or errors, against its thread.
//!
//! Ignored by default: it wants two quiet cores. `cargo test --release -p native --test embedded_ceiling -- --ignored
//! --nocapture` prints requests per second and the cores' ping-pong; it asserts only that every request was answered.
use native::embedded::minimal::{Device, Options, Rings};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering, fence};
use std::time::Instant;

/// Descriptors; a third of them, rounded down to a power of two, are requests.
const SIZE: usize = 1024;
const SLOTS: usize = 256;

/// The driver's half of a ring with everything that never changes written once.
struct Bare {
    words: Box<[AtomicU64]>,
    next: u16,
    seen: u16,
}

const AVAILABLE: usize = 2 * SIZE;
const USED: usize = AVAILABLE + SIZE / 4 + 8;
const HEADERS: usize = USED + SIZE + 8;
const STATUSES: usize = HEADERS + 2 * SLOTS;
const WORDS: usize = STATUSES + SLOTS / 8 + 32;

impl Bare {
    fn new() -> Self {
        let words: Box<[AtomicU64]> = (0..WORDS + 32).map(|_| AtomicU64::new(0)).collect();
        let bare = Self { words, next: 0, seen: 0 };
        for slot in 0..SLOTS {
            let (data, status) = ((SLOTS + slot) as u64, (2 * SLOTS + slot) as u64);
            bare.describe(slot, bare.address(HEADERS + 2 * slot), 16 | 1 << 32 | data << 48);
            bare.describe(2 * SLOTS + slot, bare.address(STATUSES) + slot as u64, 1 | 2 << 32);
            bare.describe(SLOTS + slot, 0, 4096 | 3 << 32 | status << 48);
        }
        // Never an interrupt.
        bare.words[AVAILABLE].store(1, Ordering::Relaxed);
        bare
    }

    /// Words from the first that starts a line pair on.
    fn first(&self) -> usize {
        (self.words.as_ptr().addr().wrapping_neg() % 128) / 8
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words[self.first() + at]
    }

    fn address(&self, at: usize) -> u64 {
        self.word(at).as_ptr() as u64
    }

    fn describe(&self, index: usize, address: u64, word: u64) {
        self.word(2 * index).store(address, Ordering::Relaxed);
        self.word(2 * index + 1).store(word, Ordering::Relaxed);
    }

    fn half(&self, at: usize, offset: usize) -> &AtomicU16 {
        // SAFETY: halves of the words at `at` on; accessed as halves only, but for the initial store.
        unsafe { AtomicU16::from_ptr(self.word(at).as_ptr().cast::<u16>().add(offset)) }
    }

    fn rings(&self) -> Rings {
        Rings {
            size: SIZE as u16,
            descriptors: self.address(0),
            available: self.address(AVAILABLE),
            used: self.address(USED) + 4,
        }
    }

    fn submit(&mut self, batch: u16) {
        for n in 0..batch {
            let at = self.next.wrapping_add(n);
            let slot = usize::from(at) % SLOTS;
            self.word(HEADERS + 2 * slot).store(0, Ordering::Relaxed);
            self.word(HEADERS + 2 * slot + 1).store(u64::from(at) * 8, Ordering::Relaxed);
            self.status(slot).store(0xff, Ordering::Relaxed);
            self.word(2 * (SLOTS + slot)).store(u64::from(at) << 12, Ordering::Relaxed);
            let status = (2 * SLOTS + slot) as u64;
            self.word(2 * (SLOTS + slot) + 1).store(4096 | 3 << 32 | status << 48, Ordering::Relaxed);
            self.half(AVAILABLE, 2 + usize::from(at) % SIZE).store(slot as u16, Ordering::Relaxed);
        }
        self.next = self.next.wrapping_add(batch);
        // Partner: the device's acquire behind its load of the available index.
        fence(Ordering::Release);
        self.half(AVAILABLE, 1).store(self.next, Ordering::Relaxed);
    }

    fn status(&self, slot: usize) -> &AtomicU8 {
        // SAFETY: a byte of the statuses, accessed as a byte only.
        unsafe { AtomicU8::from_ptr(self.word(STATUSES).as_ptr().cast::<u8>().add(slot)) }
    }

    /// Takes what is there, at least one.
    fn reap(&mut self) -> u64 {
        let index = loop {
            let index = self.half(USED, 3).load(Ordering::Relaxed);
            if index != self.seen {
                break index;
            }
            std::hint::spin_loop();
        };
        // Partner: the device's release before its store of the used index.
        fence(Ordering::Acquire);
        let count = index.wrapping_sub(self.seen);
        for n in 0..count {
            let entry = self.word(USED + 1 + usize::from(self.seen.wrapping_add(n)) % SIZE).load(Ordering::Relaxed);
            let slot = entry as u32 as usize;
            assert!(entry >> 32 == 4097 && self.status(slot % SLOTS).load(Ordering::Relaxed) == 0);
        }
        self.seen = index;
        count.into()
    }

    fn run(&mut self, batch: u16, depth: u64, total: u64) -> f64 {
        let (mut sent, mut done) = (0_u64, 0_u64);
        let start = Instant::now();
        while done < total {
            while sent < total && sent - done + u64::from(batch) <= depth {
                self.submit(batch);
                sent += u64::from(batch);
            }
            done += self.reap();
        }
        total as f64 / start.elapsed().as_secs_f64() / 1e6
    }
}

fn pin(core: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(core).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
}

/// Nanoseconds for a line to go to the other core and back.
fn ping_pong() -> f64 {
    const ROUNDS: u64 = 20_000;
    let line = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            for n in 0..ROUNDS {
                while line.load(Ordering::Acquire) != 2 * n + 1 {}
                line.store(2 * n + 2, Ordering::Release);
            }
        });
        let mut start = Instant::now();
        for n in 0..ROUNDS {
            if n == 1000 {
                start = Instant::now();
            }
            line.store(2 * n + 1, Ordering::Release);
            while line.load(Ordering::Acquire) != 2 * n + 2 {}
        }
        start.elapsed().as_nanos() as f64 / (ROUNDS - 1000) as f64
    })
}

#[test]
#[ignore = "a measurement: wants two quiet cores"]
fn bare_ring_against_the_spinning_device() {
    pin(0);
    let mut bare = Bare::new();
    let region = (bare.words.as_ptr() as *mut u8, bare.words.len() * 8);
    // SAFETY: the words outlive the device, which is dropped first (declared later); the ring is driven by its rules.
    let device = unsafe { Device::new(Options::default(), &[region], Vec::new()) }.unwrap();
    // SAFETY: initialised above, driven by `bare` only.
    unsafe { device.install(0, &bare.rings(), false, None) }.unwrap();
    device.start();
    let worker = device.spawn(vec![0], Some(1)).unwrap();
    let mut total = 0;
    for _ in 0..5 {
        for (batch, depth) in [(1, 1), (1, 128), (8, 128), (32, 32), (32, 64), (32, 128), (32, 256), (128, 256)] {
            let count = if depth == 1 { 1 << 18 } else { 1 << 22 };
            let before = ping_pong();
            let rate = bare.run(batch, depth, count);
            println!("batch {batch:3} depth {depth:3}: {rate:6.1} M/s  ping-pong {before:4.0} ns");
            total += count;
        }
    }
    device.halt();
    drop(worker);
    assert!(device.try_quiesce());
    assert_eq!((device.counters(0).used, device.is_broken()), (total, false));
    println!("mean batch seen {:.1}", device.counters(0).used as f64 / device.counters(0).batches as f64);
}
