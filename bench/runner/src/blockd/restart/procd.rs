//! procd and the part of blockd that outlives the driver: begins lives, calls them, draws moments, kills.
use super::life::{Doors, Estate, Facts, Life, Member};
use super::port::{Phase, Port};
use crate::blockd::drive::CREDIT;
use crate::crew::Crew;
use crate::ground::{Begun, Ground};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::lib_block::message::{Body, Given, Opening};
use drv_virtio_block::platform::{Badges, Nanos, Platform};
use drv_virtio_block::queue::Wake;
use drv_virtio_block::service::Envelope;
use workload::params::{Mode, Params};
use workload::random::Random;

/// Bound on a life.
const LIFE_NS: u64 = 20_000_000_000;
/// From the beginning of a life to a kill that comes soon, as powers of two: until a bring-up is over.
const SOON_NS: core::ops::Range<u64> = 12..22;
/// Requests before a kill that comes later, at most.
const LATER: u64 = 1 << 11;
/// Spins before a kill, at most.
const SPINS: u64 = 1 << 12;
/// How often the driver is looked at.
const LOOK: Nanos = Nanos(20_000);

/// When to kill.
enum Moment {
    /// So long after the life began, whatever came of it.
    At(Nanos),
    /// While it answers the call with this number.
    In(usize),
    /// After so many answers.
    After(u64),
}

/// See the module's text.
pub(super) struct Procd<'g, G: Ground> {
    ground: &'g G,
    platform: G::Platform,
    estate: Estate,
    port: &'static Port,
    doors: Doors<G::Wake>,
    /// Rings the driver.
    rung: G::Wake,
    /// What the driver hears of it.
    bell: Badges,
    /// The driver's job.
    seat: u16,
    envelope: Envelope,
    members: &'static [Member],
    openings: Vec<Opening>,
    random: Random,
    /// The life that is: whatever it was given is its alone.
    life: Option<Box<dyn Begun<Option<Facts>>>>,
    /// Calls that every life begins with and this one answered: START, then the clients' sessions.
    answered: usize,
    /// The next one was asked.
    asked: bool,
    deaths: [u64; Phase::NAMES.len()],
}

impl<'g, G: Ground> Procd<'g, G> {
    /// Without a life yet.
    pub(super) fn new(ground: &'g G, params: &Params, crew: Crew, bell: Badges, doors: Doors<G::Wake>) -> Self {
        let mode = if params.mode == Mode::Polled { CompletionMode::Polled } else { CompletionMode::Interrupt };
        let envelope = Envelope {
            epoch: 0,
            queues: crew.queues,
            queue_size: super::queue_size(params),
            sessions: params.clients.div_ceil(crew.queues),
            credit: CREDIT,
            mode,
            ..Envelope::default()
        };
        Self {
            ground,
            platform: ground.platform(),
            estate: Estate::new(crew.queues),
            port: Box::leak(Box::new(Port::new())),
            doors,
            rung: ground.wake(vec![crew.jobs - 1]),
            bell,
            seat: crew.jobs - 1,
            envelope,
            members: &[],
            openings: Vec::new(),
            random: Random::new(params.randseed),
            life: None,
            answered: 0,
            asked: false,
            deaths: [0; Phase::NAMES.len()],
        }
    }

    /// Whose sessions the next lives are to open.
    pub(super) fn know(&mut self, members: Vec<Member>, openings: Vec<Opening>) {
        self.members = members.leak();
        self.openings = openings;
    }

    /// Begins the next life, where the one before ended.
    pub(super) fn begin(&mut self) -> Result<(), String> {
        if self.life.is_some() {
            return Err("two lives at once".to_string());
        }
        self.ground.bound(LIFE_NS);
        self.envelope.epoch += 1;
        (self.answered, self.asked) = (0, false);
        self.port.clear();
        // SAFETY: there is no life: the last one returned, or its processor does something else (`Begun::kill`), and what
        // came back of it are plain facts. The service resets the device before it stores anything.
        let hardware = unsafe { self.estate.pass_on(self.ground.hand_over_again()?) }?;
        let life = Life {
            hardware,
            envelope: self.envelope,
            platform: self.ground.platform(),
            doors: self.doors.clone(),
            port: self.port,
            members: self.members,
            bell: self.bell,
        };
        // SAFETY: the service and all it makes refer to leaked memory, never to the stack; the device is told of the rings'
        // memory and of clients' alone; nothing of the driver's has a drop that anybody counts on.
        self.life = Some(unsafe { self.ground.begin_mortal(self.seat, Box::new(move || life.live())) }?);
        Ok(())
    }

    /// Kills the life where it is.
    pub(super) fn kill(&mut self) -> Result<(), String> {
        let life = self.life.take().ok_or("there is no life")?;
        if life.kill().is_some() {
            return Err(format!("life {} had ended by itself", self.envelope.epoch));
        }
        self.deaths[self.port.phase()] += 1;
        Ok(())
    }

    /// Lets the life return.
    pub(super) fn dismiss(&mut self) -> Result<Option<Facts>, String> {
        let life = self.life.take().ok_or("there is no life")?;
        self.port.dismiss();
        self.rung.wake(0);
        life.outcome().ok_or_else(|| "a life that was dismissed was killed".to_string())
    }

    /// One call, and what it gave.
    pub(super) fn call(&mut self, body: Body) -> Result<Given, String> {
        self.port.ask(body, None);
        self.rung.wake(0);
        loop {
            if let Some(answer) = self.port.answer() {
                return answer.map_err(|why| format!("life {}: {body:?}: {why}", self.envelope.epoch));
            }
            self.is_alive()?;
            self.pause();
        }
    }

    /// Until every session is open.
    pub(super) fn serve_all(&mut self) -> Result<(), String> {
        while self.answered <= self.openings.len() {
            self.step()?;
            self.pause();
        }
        Ok(())
    }

    /// Until the life answered `completed` requests; `watch` looks after everybody else.
    pub(super) fn live_until(
        &mut self,
        completed: u64,
        mut watch: impl FnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        while self.answered <= self.openings.len() || self.port.completed() < completed {
            self.step()?;
            watch()?;
            self.pause();
        }
        Ok(())
    }

    /// Until a moment that is drawn: every other one comes before there is a load. Shorter spans are as likely as longer
    /// ones.
    pub(super) fn live_until_drawn(&mut self, mut watch: impl FnMut() -> Result<(), String>) -> Result<(), String> {
        let moment = self.draw();
        while !self.has_come(&moment) {
            self.step()?;
            watch()?;
            if matches!(moment, Moment::After(_)) {
                self.pause();
            }
        }
        for turn in 0..self.random.below(SPINS) {
            black_box(turn);
        }
        Ok(())
    }

    fn draw(&mut self) -> Moment {
        match self.random.below(4) {
            0 => {
                let most = SOON_NS.start + self.random.below(SOON_NS.end - SOON_NS.start);
                Moment::At(self.platform.now().after(Nanos(self.random.below(1 << most))))
            }
            1 => Moment::In(self.random.below(self.openings.len() as u64 + 1) as usize),
            _ => {
                let most = self.random.below(LATER.ilog2().into());
                Moment::After(1 + self.random.below(1 << most))
            }
        }
    }

    fn has_come(&self, moment: &Moment) -> bool {
        match *moment {
            Moment::At(end) => self.platform.now() >= end,
            Moment::In(call) => self.answered > call || (self.answered == call && self.asked),
            Moment::After(completed) => self.port.completed() >= completed,
        }
    }

    /// Moves the calls on that every life begins with.
    fn step(&mut self) -> Result<(), String> {
        self.is_alive()?;
        if self.asked {
            let Some(answer) = self.port.answer() else { return Ok(()) };
            let epoch = self.envelope.epoch;
            match answer.map_err(|why| format!("life {epoch}, call {}: {why}", self.answered))? {
                Given::Opened(opened) if opened.info.epoch != epoch => {
                    return Err(format!("life {epoch} says that it is {}", opened.info.epoch));
                }
                _ => (self.asked, self.answered) = (false, self.answered + 1),
            }
        }
        let client = self.answered.checked_sub(1);
        let body = match client.map(|client| self.openings.get(client)) {
            None => Body::Start,
            Some(Some(opening)) => Body::Open(*opening),
            Some(None) => return Ok(()),
        };
        self.port.ask(body, client.map(|client| client as u16));
        self.rung.wake(0);
        self.asked = true;
        Ok(())
    }

    fn is_alive(&self) -> Result<(), String> {
        match &self.life {
            Some(life) if !life.is_over() => Ok(()),
            _ => Err(format!("life {} ended by itself", self.envelope.epoch)),
        }
    }

    fn pause(&self) {
        self.platform.wait(Badges::NONE, Some(self.platform.now().after(LOOK)));
    }

    /// The life that is, or was last.
    pub(super) fn epoch(&self) -> u32 {
        self.envelope.epoch
    }

    /// How many were killed.
    pub(super) fn kills(&self) -> u64 {
        self.deaths.iter().sum()
    }

    /// Kills by what the life was at.
    pub(super) fn phases(&self) -> String {
        let each = Phase::NAMES.iter().zip(self.deaths).map(|(name, deaths)| format!("{deaths} {name}"));
        each.collect::<Vec<_>>().join(", ")
    }
}
