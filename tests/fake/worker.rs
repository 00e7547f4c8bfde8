//! A device on a thread of its own, for tests in which driver and device race.
use super::{DriverFault, FakeDevice, Order};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the thread learns of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// It looks all the time.
    Polling,
    /// It sleeps until a doorbell. If none comes for this long while one is due, and for this long again, it
    /// records [`DriverFault::DoorbellLost`] and works on.
    Doorbell(Duration),
}

/// How the thread serves its queues.
#[derive(Clone, Debug)]
pub(crate) struct Serve {
    pub(crate) queues: Vec<u16>,
    pub(crate) wake: Wake,
    pub(crate) order: Order,
    /// Most chains per batch.
    pub(crate) batch: usize,
}

impl Default for Serve {
    /// Queue 0, by doorbell, in order, batches of any size.
    fn default() -> Self {
        Self { queues: vec![0], wake: Wake::Doorbell(Duration::from_secs(2)), order: Order::AsTaken, batch: usize::MAX }
    }
}

/// The thread; it ends with [`DeviceThread::stop`] or when this is dropped.
pub(crate) struct DeviceThread {
    device: FakeDevice,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl FakeDevice {
    /// Starts a thread that serves queues. Several threads may serve different queues of one device.
    pub(crate) fn serve(&self, serve: Serve) -> DeviceThread {
        let stop = Arc::new(AtomicBool::new(false));
        let (device, stopped) = (self.clone(), Arc::clone(&stop));
        let thread = Some(std::thread::spawn(move || device.run(&serve, &stopped)));
        DeviceThread { device: self.clone(), stop, thread }
    }

    fn run(&self, serve: &Serve, stop: &AtomicBool) -> u64 {
        let mut done = 0;
        while !stop.load(Ordering::Acquire) {
            // Before looking: a doorbell that comes from here on ends the sleep below.
            let seen = self.shared.signals.all_doorbells();
            let now = self.round(serve);
            done += now;
            match serve.wake {
                _ if now > 0 => {}
                Wake::Polling => std::thread::yield_now(),
                Wake::Doorbell(patience) => self.sleep(serve, seen, patience, stop),
            }
        }
        done
    }

    /// Serves each queue once.
    fn round(&self, serve: &Serve) -> u64 {
        serve.queues.iter().map(|queue| self.process(*queue, serve.batch, serve.order) as u64).sum()
    }

    /// Asks for doorbells everywhere, looks again, sleeps if there is nothing.
    fn sleep(&self, serve: &Serve, seen: u64, patience: Duration, stop: &AtomicBool) {
        let live = self.shared.signals.hears();
        let more = live && serve.queues.iter().filter(|queue| self.rearm(**queue)).count() > 0;
        if more || stop.load(Ordering::Acquire) || self.shared.signals.await_doorbell(seen, patience) {
            return;
        }
        let due = |queue: &&u16| live && self.with(|inner| inner.doorbell_due(**queue));
        let Some(&queue) = serve.queues.iter().find(due) else { return };
        // The driver may be between its store and its doorbell; give it as long again.
        let rung = self.shared.signals.await_doorbell(seen, patience);
        if !rung && !stop.load(Ordering::Acquire) {
            self.shared.faults.extend(vec![DriverFault::DoorbellLost { queue }]);
        }
    }
}

impl DeviceThread {
    /// Ends the thread; tells how many chains it completed.
    pub(crate) fn stop(mut self) -> u64 {
        self.join()
    }

    fn join(&mut self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.device.shared.signals.nudge();
        self.thread.take().map_or(0, |thread| thread.join().expect("the device's thread does not panic"))
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop.store(true, Ordering::Release);
        } else {
            self.join();
        }
    }
}
