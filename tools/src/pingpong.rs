//! How far apart two cores are at this moment.
//!
//! Two pinned threads bounce one cache line. A virtual machine's cores sit now near one another (tens of nanoseconds
//! per round trip), now far (hundreds), and results from the two are different results: every timed run is bracketed
//! by a sample. Knows nothing of runs.
use crate::pin;
use anyhow::{Result, anyhow};
use serde::Serialize;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Round trips between two looks at the clock.
const ROUNDS: u32 = 200;
/// How many such batches; the median of them is the answer.
const BATCHES: usize = 31;
/// Below this many nanoseconds per round trip the cores are near.
const NEAR_NS: f64 = 180.0;
/// A core that does not answer for this long is not there: the sample is given up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Tells the answering thread to leave.
const LEAVE: u32 = u32::MAX;

/// Where the two cores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Distance {
    /// A round trip takes tens of nanoseconds.
    Near,
    /// A round trip takes hundreds.
    Far,
}

impl Distance {
    /// Of cores that are `ns` per round trip apart.
    pub(crate) fn of(ns: f64) -> Self {
        if ns < NEAR_NS { Self::Near } else { Self::Far }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// A line of its own for each side's word.
#[repr(align(128))]
struct Line(AtomicU32);

/// Nanoseconds per round trip between two different cores.
pub(crate) fn sample(here: usize, there: usize) -> Result<f64> {
    let line = Line(AtomicU32::new(0));
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| pin::pin(None, there).map(|()| answer(&line.0)));
        let asking = scope.spawn(|| {
            let times = pin::pin(None, here).and_then(|()| ask(&line.0));
            line.0.store(LEAVE, Ordering::Release);
            times
        });
        let times = asking.join().map_err(|_| anyhow!("ping-pong panicked"))?;
        answering.join().map_err(|_| anyhow!("ping-pong panicked"))??;
        times
    })
}

/// Even: ours to write; odd: theirs.
fn ask(line: &AtomicU32) -> Result<f64> {
    let mut times = Vec::with_capacity(BATCHES);
    let mut turn = 0;
    round_trips(line, &mut turn)?;
    for _ in 0..BATCHES {
        let start = Instant::now();
        round_trips(line, &mut turn)?;
        times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[BATCHES / 2])
}

fn round_trips(line: &AtomicU32, turn: &mut u32) -> Result<()> {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        line.store(*turn + 1, Ordering::Release);
        *turn += 2;
        let mut spins = 0_u32;
        while line.load(Ordering::Acquire) != *turn {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(1 << 16) && start.elapsed() > PATIENCE {
                return Err(anyhow!("the other core does not answer"));
            }
            spin_loop();
        }
    }
    Ok(())
}

fn answer(line: &AtomicU32) {
    loop {
        match line.load(Ordering::Acquire) {
            LEAVE => return,
            // An exchange, so that LEAVE written meanwhile is not overwritten.
            odd if odd % 2 == 1 => {
                let _ = line.compare_exchange(odd, odd + 1, Ordering::AcqRel, Ordering::Acquire);
            }
            _ => spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_have_a_distance() {
        let cores = pin::cores().unwrap();
        if let [here, there, ..] = cores[..] {
            let ns = sample(here, there).unwrap();
            assert!(ns > 5.0 && ns < 1e6, "{ns} ns per round trip");
        }
    }

    #[test]
    fn a_core_that_cannot_be_used_is_an_error_and_nobody_spins_for_ever() {
        assert!(sample(pin::cores().unwrap()[0], 100_000).is_err());
    }

    #[test]
    fn near_and_far_are_told_apart() {
        assert_eq!(Distance::of(55.0), Distance::Near);
        assert_eq!(Distance::of(450.0), Distance::Far);
    }
}
