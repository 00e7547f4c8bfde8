//! A platform whose time goes on only while the driver waits, and whose badges the test raises.
use super::Fuse;
use drv_virtio_block::platform::{Badge, Badges, Nanos, Platform};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Badges from here on are no interrupts.
const OTHERS: u8 = 40;
/// What a turn of a bounded spin takes.
const TURN: u64 = 1_000_000;

/// What devices and clients reach of the platform.
#[derive(Default)]
pub(crate) struct Line {
    raised: AtomicU64,
    /// Delivered, and not acknowledged.
    delivered: AtomicU64,
    /// Arrived meanwhile.
    kept: AtomicU64,
}

impl Line {
    /// An interrupt on a vector, whose badge has its number.
    pub(crate) fn interrupt(&self, vector: u16) {
        // Without MSI-X nobody hears it.
        let Some(bit) = 1_u64.checked_shl(vector.into()) else { return };
        let place = if self.delivered.load(SeqCst) & bit == 0 { &self.raised } else { &self.kept };
        place.fetch_or(bit, SeqCst);
    }
}

/// One sleep, or look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sleep {
    pub(crate) set: Badges,
    /// From when, and until when at most.
    pub(crate) from: Nanos,
    pub(crate) until: Option<Nanos>,
    pub(crate) fired: Badges,
}

impl Sleep {
    /// Whether it was not to sleep at all.
    pub(crate) fn is_look(&self) -> bool {
        self.until.is_some_and(|until| until <= self.from)
    }
}

type Deed = Box<dyn FnMut()>;

/// See the module's text.
pub(crate) struct Desk {
    line: Arc<Line>,
    time: AtomicU64,
    fuse: Fuse,
    relaxing: RefCell<Deed>,
    /// What happens in the next sleeps, one after the other.
    asleep: RefCell<VecDeque<Deed>>,
    sleeps: RefCell<Vec<Sleep>>,
}

impl Desk {
    pub(super) fn new(fuse: &Fuse) -> Self {
        Self {
            line: Arc::default(),
            time: AtomicU64::new(TURN),
            fuse: fuse.clone(),
            relaxing: RefCell::new(Box::new(|| {})),
            asleep: RefCell::default(),
            sleeps: RefCell::default(),
        }
    }

    pub(crate) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// What happens in every turn of a bounded spin.
    pub(crate) fn while_relaxing(&self, deed: impl FnMut() + 'static) {
        *self.relaxing.borrow_mut() = Box::new(deed);
    }

    /// What happens in the next sleep for which nothing was said yet.
    pub(crate) fn while_asleep<R>(&self, mut deed: impl FnMut() -> R + 'static) {
        self.asleep.borrow_mut().push_back(Box::new(move || {
            deed();
        }));
    }

    /// Raises a badge that is no interrupt.
    pub(crate) fn raise(&self, badge: Badge) {
        assert!(badge.number() >= OTHERS);
        self.line.raised.fetch_or(badge.alone().0, SeqCst);
    }

    /// A badge that is no interrupt.
    pub(crate) fn other(number: u8) -> Badge {
        Badge::new(OTHERS + number).expect("a badge")
    }

    /// Lets time go on.
    pub(crate) fn pass_time(&self, span: Nanos) {
        self.time.fetch_add(span.0, SeqCst);
    }

    /// Sleeps and looks since the last call.
    pub(crate) fn sleeps(&self) -> Vec<Sleep> {
        self.sleeps.take()
    }

    /// Interrupts that were delivered and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> Badges {
        Badges(self.line.delivered.load(SeqCst))
    }

    fn time(&self) -> Nanos {
        Nanos(self.time.load(SeqCst))
    }

    fn take(&self, set: Badges) -> Badges {
        let fired = Badges(self.line.raised.fetch_and(!set.0, SeqCst)).and(set);
        self.line.delivered.fetch_or(fired.0 & ((1 << OTHERS) - 1), SeqCst);
        fired
    }
}

impl Platform for Desk {
    fn now(&self) -> Nanos {
        self.fuse.tick();
        self.time()
    }

    fn relax(&self) {
        self.fuse.tick();
        (self.relaxing.borrow_mut())();
        self.time.fetch_add(TURN, SeqCst);
    }

    fn wait(&self, set: Badges, until: Option<Nanos>) -> Badges {
        self.fuse.tick();
        let from = self.time();
        let mut fired = self.take(set);
        while fired.is_empty() && until.is_none_or(|until| until > self.time()) {
            let deed = self.asleep.borrow_mut().pop_front();
            match (deed, until) {
                (Some(mut deed), _) => deed(),
                (None, Some(until)) => self.time.store(until.0, SeqCst),
                (None, None) if set.is_empty() => break,
                (None, None) => panic!("asleep for ever, waiting for {set:?}"),
            }
            fired = self.take(set);
        }
        self.sleeps.borrow_mut().push(Sleep { set, from, until, fired });
        fired
    }

    fn acknowledge(&self, badges: Badges) {
        self.fuse.tick();
        self.line.delivered.fetch_and(!badges.0, SeqCst);
        let again = self.line.kept.fetch_and(!badges.0, SeqCst) & badges.0;
        self.line.raised.fetch_or(again, SeqCst);
    }

    fn mask(&self, _: Badges) {}
    fn unmask(&self, _: Badges) {}
}
