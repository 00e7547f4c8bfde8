//! What a run reached that differs from what was asked for, in words.
//!
//! The result file has it as numbers; here it is said, because figures of another ring size, or of a polled queue in the
//! place of interrupts, are not what somebody wanted to measure.
use crate::figures::Cell;
use crate::job::Job;
use workload::params::{Driver, Indirect, Mode};
use workload::report::Boot;

const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;

/// A line for each difference, each once, with the job's name.
pub(crate) fn of_cells(cells: &[Cell]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for cell in cells {
        for sample in &cell.samples {
            let named = of(&cell.job, &sample.boot).into_iter().map(|what| format!("{}: {what}", cell.job.params.name));
            let new: Vec<_> = named.filter(|line| !lines.contains(line)).collect();
            lines.extend(new);
        }
    }
    lines
}

/// What differs in one run. Others' drivers choose for themselves.
pub(crate) fn of(job: &Job, boot: &Boot) -> Vec<String> {
    let params = &job.params;
    if !matches!(params.driver, Driver::Ours | Driver::Raw) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let (queues, rung) = (params.queues_wished(), boot.rung.as_str());
    if params.mode == Mode::Interrupt && rung == "none" {
        lines
            .push("mode=interrupt was asked for, but there is no interrupt vector: what was measured is polled".into());
    } else if params.mode == Mode::Interrupt && rung != asked_rung(params.vectors, queues) {
        let (vectors, asked) = (params.vectors, asked_rung(params.vectors, queues));
        let reached = boot.vectors;
        lines.push(format!("vectors={vectors} was asked for ({asked}), the device has {reached} of use ({rung})"));
    }
    if boot.queues < queues {
        lines.push(format!("queues={queues} was asked for, {} came into use", boot.queues));
    }
    if params.queue_size != 0 && boot.queue_size != params.queue_size {
        lines.push(format!("queue_size={} was asked for, {} was reached", params.queue_size, boot.queue_size));
    }
    if params.event_idx && boot.features & EVENT_IDX == 0 {
        lines.push("event_idx=on was asked for, the device does not offer event indices".into());
    }
    if params.indirect == Indirect::On && boot.features & INDIRECT_DESC == 0 {
        lines.push("indirect=on was asked for, the device does not offer indirect tables".into());
    }
    lines
}

/// The rung of the fallback ladder that so many vectors lead to.
fn asked_rung(vectors: u16, queues: u16) -> &'static str {
    match vectors {
        0 => "none",
        1 => "single",
        _ if vectors <= queues => "shared",
        _ => "vector-per-queue",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Draft;

    fn boot(vectors: u16, rung: &str) -> Boot {
        Boot {
            version: workload::report::VERSION,
            capacity: 1 << 21,
            queues: if vectors == 0 { 1 } else { 4 },
            queue_size: 1024,
            slots: 341,
            vectors,
            rung: rung.try_into().unwrap(),
            features: EVENT_IDX | INDIRECT_DESC,
            read_only: false,
            writeback: true,
        }
    }

    fn said(words: &str, boot: &Boot) -> String {
        let job = Draft::of(&format!("runtime=1 {words}")).unwrap().finish().unwrap();
        of(&job, boot).join("; ")
    }

    #[test]
    fn what_was_reached_as_asked_for_is_not_mentioned() {
        for (vectors, rung) in [(5, "vector-per-queue"), (4, "shared"), (2, "shared"), (1, "single")] {
            let words = format!("mode=interrupt queues=4 numjobs=4 vectors={vectors}");
            assert_eq!(said(&words, &boot(vectors, rung)), "");
        }
        assert_eq!(said("mode=polled queues=4 numjobs=4", &boot(1, "none")), "");
        assert_eq!(said("mode=polled queue_size=1024", &boot(1, "none")), "");
    }

    #[test]
    fn interrupts_that_were_asked_for_and_not_had_are_mentioned_with_the_queue_that_is_polled() {
        for words in ["vectors=0", "vectors=5", "vectors=0 queues=4 numjobs=4"] {
            let line = said(&format!("mode=interrupt {words}"), &boot(0, "none"));
            assert!(line.contains("mode=interrupt was asked for") && line.contains("polled"), "{words}: {line}");
        }
        let line = said("mode=interrupt queues=4 numjobs=4", &boot(0, "none"));
        assert!(line.contains("queues=4 was asked for, 1 came into use"), "{line}");
    }

    #[test]
    fn a_lower_rung_another_ring_and_features_that_are_missing_are_mentioned() {
        let line = said("mode=interrupt queues=4 numjobs=4", &boot(2, "shared"));
        assert_eq!(line, "vectors=5 was asked for (vector-per-queue), the device has 2 of use (shared)");
        let smaller = Boot { queue_size: 128, ..boot(1, "none") };
        assert_eq!(said("mode=polled queue_size=512", &smaller), "queue_size=512 was asked for, 128 was reached");
        let bare = Boot { features: 0, ..boot(1, "none") };
        let line = said("mode=polled indirect=on", &bare);
        assert!(line.contains("event_idx=on") && line.contains("indirect=on"), "{line}");
        assert_eq!(said("mode=polled event_idx=off", &bare), "");
    }
}
