//! What ends work early: a signal, a time limit, a reader of the output that left.
//!
//! Every loop that may take long and every wait calls [`check`]. The first signal lets the work in progress unwind, so
//! that processes are killed and temporary files removed; a second one ends the tool at once, and so does the first
//! after [`GRACE`] if something cannot be left, such as a read from a device that hangs. The kernel kills the children
//! then (see `process`). A time limit belongs to the thread that set it, [`within`] a scope.
use crate::say;
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

thread_local! {
    static LIMIT: Cell<Option<Limit>> = const { Cell::new(None) };
}

/// How often a wait looks at the flag.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Exit status of an interrupted command.
pub(crate) const STATUS: u8 = 130;

/// How long work may take to unwind after a signal.
const GRACE: Duration = Duration::from_secs(6);

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// When work must be over, and how long it has in all.
#[derive(Clone, Copy)]
struct Limit {
    end: Instant,
    whole: Duration,
}

/// From here on, signals set the flag.
pub(crate) fn install() -> Result<()> {
    let what = "installing signal handlers";
    for signal in SIGNALS {
        flag::register_conditional_shutdown(signal, i32::from(STATUS), Arc::clone(&STOP))
            .and_then(|_| flag::register(signal, Arc::clone(&STOP)))
            .context(what)?;
    }
    let mut signals = Signals::new(SIGNALS).context(what)?;
    // It sleeps in a read until a signal comes: nothing of it runs beside what is measured.
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::thread::sleep(GRACE);
            say::note!("error: interrupted; what was at work did not end within {} s and was left", GRACE.as_secs());
            std::process::exit(STATUS.into());
        }
    });
    Ok(())
}

/// Whether a signal came.
pub(crate) fn requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// An error once a signal came, or nobody reads the output any more.
pub(crate) fn interrupted() -> Result<()> {
    if requested() {
        bail!("interrupted; nothing was left running");
    }
    if say::is_closed() {
        bail!("nobody reads the output any more");
    }
    Ok(())
}

/// Likewise, and once the thread's time limit is over.
pub(crate) fn check() -> Result<()> {
    interrupted()?;
    match LIMIT.get() {
        Some(limit) if Instant::now() >= limit.end => {
            bail!("it was not over within {} s and was ended: raise --timeout", limit.whole.as_secs())
        }
        _ => Ok(()),
    }
}

/// When this thread's work must be over; `otherwise` without a limit, or if that is sooner.
pub(crate) fn deadline(otherwise: Instant) -> Instant {
    LIMIT.get().map_or(otherwise, |limit| limit.end.min(otherwise))
}

/// A time limit of this thread; over when it is dropped.
pub(crate) struct Within(Option<Limit>);

/// Limits what this thread does while the answer lives to `whole`, if there is a limit. Within another limit that one
/// counts.
pub(crate) fn within(whole: Option<Duration>) -> Within {
    let before = LIMIT.get();
    LIMIT.set(before.or(whole.map(|whole| Limit { end: Instant::now() + whole, whole })));
    Within(before)
}

/// Begins the thread's time limit anew, if it has one: work that is repeated has all of its time again.
pub(crate) fn renew() {
    LIMIT.set(LIMIT.get().map(|Limit { whole, .. }| Limit { end: Instant::now() + whole, whole }));
}

impl Drop for Within {
    fn drop(&mut self) {
        // Within another limit it is the other one's, which may have begun anew.
        if self.0.is_none() {
            LIMIT.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_when_its_time_is_over_and_the_limit_ends_with_its_scope() {
        {
            let _limit = within(Some(Duration::ZERO));
            assert!(check().unwrap_err().to_string().contains("raise --timeout"));
            {
                let _longer = within(Some(Duration::from_hours(1)));
                check().unwrap_err();
            }
            check().unwrap_err();
            std::thread::spawn(|| check().unwrap()).join().unwrap();
        }
        check().unwrap();
    }

    #[test]
    fn the_sooner_of_two_ends_counts() {
        let (soon, late) = (Instant::now(), Instant::now() + Duration::from_hours(2));
        let _limit = within(Some(Duration::from_hours(1)));
        assert_eq!(deadline(soon), soon);
        assert!(deadline(late) < late);
    }
}
