//! The nucleus as the driver's platform: its clock, its badge words, its interrupts.
use crate::irq::{self, Capability, NEVER};
use crate::time::now_ns;
use drv_virtio_block::platform::{Badges, Nanos, Platform};

/// The platform of the processor that calls; `interrupts` are those that may be masked by badge.
#[derive(Clone, Copy)]
pub struct Nucleus {
    pub interrupts: &'static [Capability],
}

impl Nucleus {
    fn each(&self, badges: Badges, act: impl Fn(&Capability)) {
        self.interrupts.iter().filter(|interrupt| interrupt.badge() & badges.0 != 0).for_each(act);
    }
}

impl Platform for Nucleus {
    fn now(&self) -> Nanos {
        Nanos(now_ns())
    }

    fn wait(&self, set: Badges, until: Option<Nanos>) -> Badges {
        Badges(irq::wait(set.0, until.map_or(NEVER, |until| until.0)))
    }

    fn acknowledge(&self, badges: Badges) {
        irq::acknowledge(badges.0);
    }

    fn mask(&self, badges: Badges) {
        self.each(badges, Capability::mask);
    }

    fn unmask(&self, badges: Badges) {
        self.each(badges, Capability::unmask);
    }
}
