//! What the platform lends the driver: a clock, a way to wait, and interrupts that wait, are acknowledged and masked.
//!
//! The model is one word of [`Badges`] per driver. Everything that can wake it owns one bit of that word: interrupt
//! capabilities, the doorbells of clients, control. A thread waits on any set of bits at once, with or without an end
//! in time, and learns from the bits which of them fired; one thread can so serve a queue, its clients and control.
//! The driver knows neither interrupt controllers nor how a thread sleeps.
//!
//! What an implementation promises:
//! - a bit that is raised stays raised until a [`Platform::wait`] takes it; raising it twice is raising it once;
//! - a bit is taken by one `wait` only, also when several threads wait on sets that share it;
//! - a raised interrupt bit is not raised again before [`Platform::acknowledge`]; an interrupt that arrives meanwhile,
//!   or while it is masked, is kept and raises the bit afterwards, at least once;
//! - what a device stored before it sent the interrupt is visible to the thread whose `wait` took the bit.
//!
//! The order that loses nothing: wait, acknowledge, drain, re-arm, look again.
#![forbid(unsafe_code)]
use core::ops::BitOr;

/// A moment, or a span, in nanoseconds. Moments count from an origin of the platform's choice and never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// A span of `millis` milliseconds, or the longest there is.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The moment `span` later, or the last one there is.
    #[must_use]
    pub const fn after(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// One bit of the badge word: what names an interrupt, a doorbell or a control capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Badge(u8);

impl Badge {
    /// Bits in the badge word.
    pub const COUNT: u8 = 64;

    /// Badge number `number`; `None` from [`Badge::COUNT`] on.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// Its number, below [`Badge::COUNT`].
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The set that holds it alone.
    pub const fn alone(self) -> Badges {
        Badges(1 << self.0)
    }
}

/// A set of badges: bit `n` stands for badge number `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Badges(pub u64);

impl Badges {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Whether no badge is in the set.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `badge` is in the set.
    #[inline(always)]
    pub const fn has(self, badge: Badge) -> bool {
        self.0 & badge.alone().0 != 0
    }

    /// The badges that are in both sets.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The set without the badges of `other`.
    #[must_use]
    #[inline(always)]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Badges {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<Badge> for Badges {
    fn from(badge: Badge) -> Self {
        badge.alone()
    }
}

impl FromIterator<Badge> for Badges {
    fn from_iter<I: IntoIterator<Item = Badge>>(badges: I) -> Self {
        badges.into_iter().fold(Self::NONE, |set, badge| set | badge.alone())
    }
}

/// The platform, as far as the driver needs one. The module's text states what an implementation promises.
///
/// ```
/// use drv_virtio_block::platform::{Badges, Nanos, Platform};
///
/// /// Serves one interrupt; false: the time came first.
/// fn serve<P: Platform>(platform: &P, interrupt: Badges, patience: Nanos, drain: impl FnOnce()) -> bool {
///     let fired = platform.wait(interrupt, Some(platform.now().after(patience)));
///     platform.acknowledge(fired);
///     drain();
///     !fired.is_empty()
/// }
/// ```
pub trait Platform {
    /// The time; it never goes back.
    fn now(&self) -> Nanos;

    /// A hint to the processor while a bounded wait spins; only set-up and reset spin so.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Blocks until a badge of `set` is raised or the moment `until` has come, takes the raised ones of `set` and
    /// returns them: empty only when the time came first. A moment that has passed makes this a look without blocking;
    /// `None` waits for ever. This is the platform's one-shot timer too: an empty `set` sleeps until `until`; an empty
    /// `set` without an end returns at once, since nothing could end it.
    fn wait(&self, set: Badges, until: Option<Nanos>) -> Badges;

    /// Lets the interrupts of `badges` be delivered again. Badges that are not interrupts, or were not delivered, are
    /// left alone. To be called before the queue is drained: an interrupt that arrives during the drain then counts.
    fn acknowledge(&self, badges: Badges);

    /// Holds the interrupts of `badges` back until [`Platform::unmask`]; they are kept, not lost.
    fn mask(&self, badges: Badges);

    /// Lets the interrupts of `badges` through again.
    fn unmask(&self, badges: Badges);
}

impl<P: Platform + ?Sized> Platform for &P {
    fn now(&self) -> Nanos {
        (**self).now()
    }

    fn relax(&self) {
        (**self).relax();
    }

    fn wait(&self, set: Badges, until: Option<Nanos>) -> Badges {
        (**self).wait(set, until)
    }

    fn acknowledge(&self, badges: Badges) {
        (**self).acknowledge(badges);
    }

    fn mask(&self, badges: Badges) {
        (**self).mask(badges);
    }

    fn unmask(&self, badges: Badges) {
        (**self).unmask(badges);
    }
}
