//! Ctrl-C and its relatives: a flag that every bounded wait looks at.
//!
//! The first signal lets the work in progress unwind, so that processes are killed and temporary files removed; a
//! second one ends the tool at once, and the kernel kills its children (see `process`).
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// How often a wait looks at the flag.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Exit status of an interrupted command.
pub(crate) const STATUS: u8 = 130;

/// From here on, signals set the flag.
pub(crate) fn install() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, i32::from(STATUS), Arc::clone(&STOP))
            .and_then(|_| flag::register(signal, Arc::clone(&STOP)))
            .context("installing signal handlers")?;
    }
    Ok(())
}

/// Whether a signal came.
pub(crate) fn requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// An error once a signal came.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted; nothing was left running");
    }
    Ok(())
}
