//! What `bench` was asked to do, and what that needs to be there.
//!
//! Jobs of the command line or a job file, or, without a workload, the matrix of a back-end. Everything that can be
//! refused is refused here, before anything is installed or built.
use crate::accel;
use crate::backend::{Backend, Server};
use crate::cli::Bench;
use crate::fail;
use crate::image;
use crate::job::{Draft, Job};
use crate::jobfile::{self, Section, Setting};
use crate::linux;
use crate::machine::Accel;
use crate::native::Native;
use crate::qemu::Qemu;
use crate::run::Bed;
use crate::say::note;
use crate::setup;
use crate::stop;
use crate::vm::Hypervisor;
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use workload::params::Driver;

/// Runtime of a single job under `--quick`.
const QUICK_MS: u64 = 1_000;
/// Settings that say where, not what.
const PLACES: [&str; 2] = ["backend", "socket"];

/// What is to be done.
pub(crate) enum Work {
    Jobs(Vec<Job>),
    /// The matrix of a back-end, and the settings that name it.
    Matrix(Backend, Vec<Setting>),
}

/// The work, with what it needs.
pub(crate) fn prepare(args: &Bench) -> Result<(Work, Bed)> {
    let work = Work::of(args, None)?;
    if !work.any(|backend| *backend == Backend::Qemu) {
        let bed = bed(args, &work, None)?;
        return Ok((work, bed));
    }
    match setup::qemu(args.means.qemu.as_deref(), !args.means.no_setup) {
        Ok(qemu) => {
            let bed = bed(args, &work, Some(qemu))?;
            Ok((work, bed))
        }
        Err(error) if may_do_without(args)? => {
            stop::check()?;
            note!("note: the embedded device is used instead of QEMU ({})", fail::line(&error));
            let work = Work::of(args, Some("embedded")).context("without QEMU")?;
            let bed = bed(args, &work, None)?;
            Ok((work, bed))
        }
        Err(error) => Err(error),
    }
}

/// Nobody asked for QEMU in particular.
fn may_do_without(args: &Bench) -> Result<bool> {
    let sections = args.file.as_deref().map_or(Ok(Vec::new()), jobfile::read)?;
    let mut settings = sections.iter().flat_map(|section| &section.settings).cloned().chain(args.machine.settings());
    let named = args.means.qemu.is_some() || args.means.image.is_some() || args.means.accel != "auto";
    Ok(!named && !settings.any(|setting| setting.key == "backend"))
}

impl Work {
    /// What was asked for; `backend` if nobody named one.
    fn of(args: &Bench, backend: Option<&str>) -> Result<Self> {
        let mut given = args.workload.settings();
        given.extend(args.machine.settings());
        if args.icount {
            given.push(setting("icount", "on", "--icount"));
        }
        given.extend(backend.map(|backend| setting("backend", backend, "--backend")));
        given.extend(args.fio.iter().cloned());
        let sections = match &args.file {
            Some(file) => jobfile::read(file)?,
            None if given.iter().all(|one| PLACES.contains(&one.key.as_str())) => {
                let mut draft = Draft::new();
                draft.apply(&given)?;
                let work = Self::Matrix(draft.finish()?.backend, given);
                return work.fits(args);
            }
            None => {
                let (name, settings) = ("bench".into(), Vec::new());
                vec![Section { name, settings }]
            }
        };
        let mut notes = Vec::new();
        if args.file.is_some() {
            notes.extend(together(&sections));
        }
        let jobs = sections.iter().map(|section| job(section, &given, args.quick, &mut notes));
        let work = Self::Jobs(jobs.collect::<Result<_>>()?).fits(args)?;
        for note in notes {
            note!("note: {note}");
        }
        Ok(work)
    }

    /// Refuses options that are not for this work.
    fn fits(self, args: &Bench) -> Result<Self> {
        let is_jobs = matches!(self, Self::Jobs(_));
        ensure!(!is_jobs || args.passes.is_none(), "--passes is for the matrix: leave it, or the workload, out");
        if !self.any(|backend| *backend == Backend::Qemu) {
            let of_qemu = [
                ("--qemu", args.means.qemu.is_some()),
                ("--image", args.means.image.is_some()),
                ("--accel", args.means.accel != "auto"),
            ];
            for (option, given) in of_qemu {
                ensure!(!given, "{option} is for backend=qemu: leave it out with a native back-end");
            }
        }
        let native = self.any(Backend::is_native);
        ensure!(native || args.means.native.is_none(), "--native is for the native back-ends: add --backend=embedded");
        Ok(self)
    }

    fn any(&self, holds: impl Fn(&Backend) -> bool) -> bool {
        match self {
            Self::Jobs(jobs) => jobs.iter().any(|job| holds(&job.backend)),
            Self::Matrix(backend, _) => holds(backend),
        }
    }

    fn jobs(&self) -> &[Job] {
        match self {
            Self::Jobs(jobs) => jobs,
            Self::Matrix(..) => &[],
        }
    }
}

fn setting(key: &str, value: &str, origin: &str) -> Setting {
    Setting { key: key.into(), value: value.into(), origin: origin.into() }
}

/// What differs from fio if sections of a file have no wall between them, or do not say what they do.
fn together(sections: &[Section]) -> Vec<String> {
    let mut notes = Vec::new();
    if sections.iter().skip(1).any(|section| !section.has(&["stonewall", "wait_for_previous", "wait_for"])) {
        notes.push("sections run one after another here; those without stonewall run together in fio".to_owned());
    }
    if sections.iter().any(|section| !section.has(&["rw", "readwrite"])) {
        notes.push("without rw a job reads at random here, and from start to end in fio".to_owned());
    }
    notes
}

/// The job of a section and of what was given besides; adds what is to be said of it to `notes`, once.
pub(crate) fn job(section: &Section, given: &[Setting], quick: bool, notes: &mut Vec<String>) -> Result<Job> {
    let mut draft = Draft::new();
    draft.typed(&section.settings)?;
    draft.typed(given)?;
    if quick {
        draft.runtime_unless_said(QUICK_MS);
    }
    let (job, said) = draft.finish_and_notes()?;
    for note in said {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Ok(job)
}

/// Installs and builds what the work needs.
fn bed(args: &Bench, work: &Work, qemu: Option<Qemu>) -> Result<Bed> {
    if !args.means.no_setup {
        setup::ensure(&[&setup::LINKER])?;
    }
    let timeout = args.means.timeout.map(Duration::from_secs);
    let qemu = qemu.map(|qemu| hypervisor(args, work, qemu)).transpose()?;
    let native = work.any(Backend::is_native).then(|| native(args, work)).transpose()?;
    let linux = work.jobs().iter().any(|job| job.params.driver == Driver::Linux);
    let linux = linux.then(|| linux::guest(!args.means.no_setup)).transpose()?;
    Ok(Bed { qemu, native, linux, plugin: None, timeout })
}

fn hypervisor(args: &Bench, work: &Work, qemu: Qemu) -> Result<Hypervisor> {
    let jobs = || work.jobs().iter().filter(|job| job.backend == Backend::Qemu);
    for job in jobs() {
        job.machine.check(qemu.major, Accel::Tcg)?;
    }
    let mut with = Hypervisor { qemu, image: image::given_or_built(args.means.image.as_deref())?, accel: Accel::Tcg };
    let counted_only = jobs().next().is_some() && jobs().all(|job| job.params.icount);
    if !counted_only || args.means.accel != "auto" {
        with.accel = accel::choose(&args.means.accel, &with)?;
    }
    Ok(with)
}

fn native(args: &Bench, work: &Work) -> Result<Native> {
    let install = !args.means.no_setup;
    let daemon = work.any(|backend| *backend == Backend::VhostUser(Server::StorageDaemon));
    let storage = daemon.then(|| setup::storage_daemon(install)).transpose()?;
    let valgrind = match work {
        Work::Jobs(jobs) => {
            let counted = jobs.iter().any(|job| job.backend.is_native() && job.params.icount);
            counted.then(|| setup::valgrind(install)).transpose()?
        }
        Work::Matrix(Backend::Embedded(_), _) => match setup::valgrind(install) {
            Ok(path) => Some(path),
            Err(error) => {
                stop::check()?;
                note!("note: instructions are not counted ({})", fail::line(&error));
                None
            }
        },
        Work::Matrix(..) => None,
    };
    Ok(Native { program: image::native(args.means.native.as_deref())?, storage, valgrind })
}
