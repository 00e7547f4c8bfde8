//! Linux as the driver's platform: a monotonic clock, and badges that are eventfds, waited for with `ppoll`.
//!
//! A badge is one of three things: an interrupt (an eventfd that a device raises), a signal (an eventfd that somebody in
//! this process raises: a client's doorbell, control), or a hang-up (a socket whose other end is closed). It refuses to
//! know which queue an interrupt belongs to, and what a back-end is.
//!
//! What [`Platform`] promises, and how: a raised bit is a count above 0, which stays until one `wait` reads it; whoever
//! reads an interrupt marks it held, and nobody polls a held or masked one, so that it stays in its count until
//! [`Platform::acknowledge`] or [`Platform::unmask`]. A thread that sleeps while a badge of its set is held or masked is
//! woken when that ends, through an eventfd of its own, and looks again.
//!
//! A hang-up is the exception: it is a state and not an event. Every `wait` for it returns it, in every thread, for as
//! long as the other end is closed, so that each thread that serves a queue learns of a dead back-end at once.
use crate::event::Event;
use drv_virtio_block::platform::{Badge, Badges, Nanos, Platform};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

/// A socket that is watched for the close of its other end. The number of its descriptor stays, also when the socket
/// behind it is exchanged, so that a platform can hold on to it from one back-end to the next.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// Watches `socket`, through a descriptor of its own.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { socket: socket.try_clone_to_owned()? })
    }

    /// Watches another socket from here on.
    ///
    /// # Errors
    /// When the system refuses; the old one is watched then.
    pub(crate) fn exchange(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: both descriptors are open for the whole call. The number stays ours and open: only what it refers to
        // is exchanged, in one step, so that a thread that polls it sees either socket.
        let done = unsafe { libc::dup3(socket.as_raw_fd(), self.socket.as_raw_fd(), OFlag::O_CLOEXEC.bits()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Whether the other end is closed.
    pub fn hung_up(&self) -> bool {
        hung_up(self.as_fd())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What poll says of a socket without an other end; it needs not be asked for.
const HANG_UP: PollFlags = PollFlags::POLLHUP.union(PollFlags::POLLERR).union(PollFlags::POLLNVAL);

/// Whether the other end of a socket is closed, without blocking.
pub(crate) fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    while ppoll(&mut fds, Some(TimeSpec::from_duration(Duration::ZERO)), None) == Err(Errno::EINTR) {}
    fds[0].revents().is_some_and(|events| events.intersects(HANG_UP))
}

/// What raises a badge.
#[derive(Clone, Debug)]
pub enum Source {
    /// A device raises it; delivered once until acknowledged.
    Interrupt(Arc<Event>),
    /// Somebody in this process raises it; no acknowledgement.
    Signal(Arc<Event>),
    /// The other end of a socket is closed: a state, seen by every `wait`.
    HangUp(Arc<Watch>),
}

/// How long a thread sleeps at most while a badge of its set is withheld.
const NAP: Duration = Duration::from_millis(10);

/// The platform. See the module's text.
pub struct LinuxPlatform {
    sources: [Option<Source>; Badge::COUNT as usize],
    /// Interrupts that were delivered and not acknowledged.
    held: AtomicU64,
    masked: AtomicU64,
    /// Threads that sleep while a badge of their set is held or masked.
    sleepers: AtomicU32,
    /// Wakes one of them for each raise.
    nudge: Event,
}

impl LinuxPlatform {
    /// A platform of these badges; of two sources of one badge the later counts.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn new(sources: impl IntoIterator<Item = (Badge, Source)>) -> io::Result<Self> {
        let mut table = [const { None }; Badge::COUNT as usize];
        for (badge, source) in sources {
            table[usize::from(badge.number())] = Some(source);
        }
        let (held, masked, sleepers) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU32::new(0));
        Ok(Self { sources: table, held, masked, sleepers, nudge: Event::counting()? })
    }

    /// Badges of `set` that are not to be delivered now.
    fn withheld(&self, set: Badges) -> Badges {
        Badges(self.held.load(Ordering::SeqCst) | self.masked.load(Ordering::SeqCst)).and(set)
    }

    fn source(&self, number: u8) -> Option<&Source> {
        self.sources[usize::from(number)].as_ref()
    }

    /// Sleeps until a badge of `set` that is not `withheld` may be raised, or `left` is over; returns those that polled
    /// as raised. Spurious returns happen.
    fn sleep(&self, set: Badges, withheld: Badges, left: Option<Duration>) -> Badges {
        let mut fds: [PollFd<'_>; Badge::COUNT as usize + 1] =
            std::array::from_fn(|_| PollFd::new(self.nudge.as_fd(), PollFlags::POLLIN));
        let mut numbers = [0_u8; Badge::COUNT as usize];
        let mut count = 0;
        for number in bits(set.without(withheld)) {
            let Some(source) = self.source(number) else { continue };
            fds[count] = match source {
                Source::Interrupt(event) | Source::Signal(event) => PollFd::new(event.as_fd(), PollFlags::POLLIN),
                Source::HangUp(watch) => PollFd::new(watch.as_fd(), PollFlags::empty()),
            };
            numbers[count] = number;
            count += 1;
        }
        // The nudge stands behind the last one. A sleeper that it wakes in vain may take the one that was another's, so
        // that over withheld badges nobody sleeps for long without looking again.
        let left = if withheld.is_empty() { left } else { Some(left.map_or(NAP, |left| left.min(NAP))) };
        let polled = count + usize::from(!withheld.is_empty());
        let ready = ppoll(&mut fds[..polled], left.map(TimeSpec::from_duration), None);
        if !matches!(ready, Ok(1..)) {
            return Badges::NONE;
        }
        if polled > count && fds[count].any() == Some(true) {
            self.nudge.take();
        }
        let raised = |n: &usize| fds[*n].revents().is_some_and(|events| !events.is_empty());
        (0..count).filter(raised).filter_map(|n| Badge::new(numbers[n])).collect()
    }

    /// Takes a badge that polled as raised; false: somebody else was faster, or it may not be delivered.
    fn take(&self, badge: Badge) -> bool {
        let bit = badge.alone();
        match self.source(badge.number()) {
            None => false,
            Some(Source::HangUp(watch)) => watch.hung_up(),
            Some(Source::Signal(event)) => event.take(),
            Some(Source::Interrupt(event)) => {
                // Marked before it is read: from here on no other thread reads the count, until it is acknowledged.
                if self.held.fetch_or(bit.0, Ordering::SeqCst) & bit.0 != 0 {
                    return false;
                }
                let taken = self.masked.load(Ordering::SeqCst) & bit.0 == 0 && event.take();
                if !taken {
                    self.release(&self.held, bit);
                }
                taken
            }
        }
    }

    /// Clears `badges` in one of the two words and wakes whoever sleeps over a badge that was in one.
    fn release(&self, word: &AtomicU64, badges: Badges) {
        let before = word.fetch_and(!badges.0, Ordering::SeqCst);
        // SeqCst, here and where the count goes up before the words are read: one of the two sides sees the other.
        if before & badges.0 != 0 {
            for _ in 0..self.sleepers.load(Ordering::SeqCst) {
                self.nudge.raise();
            }
        }
    }
}

/// The numbers in a set.
fn bits(set: Badges) -> impl Iterator<Item = u8> {
    let mut left = set.0;
    std::iter::from_fn(move || {
        let number = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        (number < u64::BITS).then_some(number as u8)
    })
}

impl Platform for LinuxPlatform {
    fn now(&self) -> Nanos {
        // CLOCK_MONOTONIC is there on every Linux; without it no deadline could be kept.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::MAX, Duration::from);
        Nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    fn relax(&self) {
        // The other side is a process that may need this processor.
        std::thread::yield_now();
    }

    fn wait(&self, set: Badges, until: Option<Nanos>) -> Badges {
        if set.is_empty() && until.is_none() {
            return Badges::NONE;
        }
        loop {
            let left = until.map(|end| Duration::from_nanos(end.0.saturating_sub(self.now().0)));
            let mut withheld = self.withheld(set);
            let polled = if withheld.is_empty() {
                self.sleep(set, withheld, left)
            } else {
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                withheld = self.withheld(set);
                let polled = self.sleep(set, withheld, left);
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                polled
            };
            let taken = bits(polled).filter_map(Badge::new).filter(|badge| self.take(*badge)).collect::<Badges>();
            if !taken.is_empty() {
                // What the raiser stored before its system call is visible after ours; the compiler keeps to it too.
                fence(Ordering::Acquire);
                return taken;
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Badges::NONE;
            }
        }
    }

    fn acknowledge(&self, badges: Badges) {
        self.release(&self.held, badges);
    }

    fn mask(&self, badges: Badges) {
        let interrupt = |badge: &Badge| matches!(self.source(badge.number()), Some(Source::Interrupt(_)));
        let interrupts: Badges = bits(badges).filter_map(Badge::new).filter(interrupt).collect();
        self.masked.fetch_or(interrupts.0, Ordering::SeqCst);
    }

    fn unmask(&self, badges: Badges) {
        self.release(&self.masked, badges);
    }
}

impl fmt::Debug for LinuxPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let badges = self.sources.iter().flatten().count();
        f.debug_struct("LinuxPlatform").field("badges", &badges).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    fn badge(n: u8) -> Badge {
        Badge::new(n).unwrap()
    }

    fn one_interrupt() -> (Arc<Event>, LinuxPlatform, Badges) {
        let event = Arc::new(Event::new().unwrap());
        let platform = LinuxPlatform::new([(badge(3), Source::Interrupt(Arc::clone(&event)))]).unwrap();
        (event, platform, badge(3).alone())
    }

    /// A look without blocking.
    const AT_ONCE: Option<Nanos> = Some(Nanos(0));

    #[test]
    fn an_interrupt_is_delivered_once_until_it_is_acknowledged_and_none_is_lost() {
        let (event, platform, set) = one_interrupt();
        assert_eq!(platform.wait(set, AT_ONCE), Badges::NONE);
        event.raise();
        assert_eq!(platform.wait(set, None), set);
        event.raise();
        assert_eq!(platform.wait(set, AT_ONCE), Badges::NONE);
        platform.acknowledge(set);
        assert_eq!(platform.wait(set, None), set);
    }

    #[test]
    fn a_masked_interrupt_is_kept() {
        let (event, platform, set) = one_interrupt();
        platform.mask(set);
        event.raise();
        assert_eq!(platform.wait(set, AT_ONCE), Badges::NONE);
        platform.unmask(set);
        assert_eq!(platform.wait(set, None), set);
    }

    #[test]
    fn a_thread_that_sleeps_over_a_held_interrupt_wakes_when_it_is_acknowledged() {
        let (event, platform, set) = one_interrupt();
        event.raise();
        assert_eq!(platform.wait(set, None), set);
        event.raise();
        std::thread::scope(|threads| {
            let sleeper = threads.spawn(|| platform.wait(set, None));
            while platform.sleepers.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            platform.acknowledge(set);
            assert_eq!(sleeper.join().unwrap(), set);
        });
    }

    #[test]
    fn of_two_threads_one_takes_the_interrupt() {
        let (event, platform, set) = one_interrupt();
        let (send, receive) = mpsc::channel();
        let end = platform.now().after(Nanos::from_millis(50));
        event.raise();
        std::thread::scope(|threads| {
            for send in [send.clone(), send] {
                let platform = &platform;
                threads.spawn(move || send.send(platform.wait(set, Some(end))).unwrap());
            }
        });
        assert_eq!(receive.iter().filter(|fired| !fired.is_empty()).count(), 1);
    }

    #[test]
    fn a_hang_up_wakes_and_stays_and_the_watch_goes_on_with_another_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let watch = Arc::new(Watch::new(ours.as_fd()).unwrap());
        let platform = LinuxPlatform::new([(badge(63), Source::HangUp(Arc::clone(&watch)))]).unwrap();
        let set = badge(63).alone();
        assert_eq!(platform.wait(set, AT_ONCE), Badges::NONE);
        std::thread::scope(|threads| {
            let sleeper = threads.spawn(|| platform.wait(set, None));
            drop(theirs);
            assert_eq!(sleeper.join().unwrap(), set);
        });
        assert_eq!(platform.wait(set, AT_ONCE), set);
        let (again, _other) = UnixStream::pair().unwrap();
        watch.exchange(again.as_fd()).unwrap();
        assert_eq!(platform.wait(set, AT_ONCE), Badges::NONE);
    }

    #[test]
    fn data_from_the_other_end_is_no_hang_up() {
        use std::io::Write;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"hello").unwrap();
        assert!(!Watch::new(ours.as_fd()).unwrap().hung_up());
    }

    #[test]
    fn an_empty_set_is_a_timer_and_time_never_goes_back() {
        let (_event, platform, _) = one_interrupt();
        let end = platform.now().after(Nanos(1_000_000));
        assert_eq!(platform.wait(Badges::NONE, Some(end)), Badges::NONE);
        assert!(platform.now() >= end);
        assert_eq!(platform.wait(Badges::NONE, None), Badges::NONE);
    }
}
