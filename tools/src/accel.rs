//! Which accelerator: the one asked for, or KVM if it really runs a guest.
//!
//! Some hosts expose a /dev/kvm that cannot run an ordinary guest, so nothing but booting one tells. Nothing is
//! remembered between commands.
use crate::job::Draft;
use crate::machine::Accel;
use crate::run::Bed;
use crate::say::note;
use crate::vm::Hypervisor;
use anyhow::{Result, bail};
use std::fs::OpenOptions;
use std::time::Duration;

/// How long KVM may take to show that it works.
const TRIAL: Duration = Duration::from_secs(3);

/// `auto`, `kvm` or `tcg`; `auto` boots the self-test under KVM to find out.
pub(crate) fn choose(word: &str, with: &Hypervisor) -> Result<Accel> {
    match word {
        "tcg" => Ok(Accel::Tcg),
        "kvm" => match reachable() {
            Ok(()) => Ok(Accel::Kvm),
            Err(why) => bail!("--accel=kvm: {why}: use --accel=tcg, or auto to find out"),
        },
        "auto" => Ok(try_kvm(with)),
        _ => bail!("--accel does not take `{word}`: give auto, kvm or tcg"),
    }
}

fn try_kvm(with: &Hypervisor) -> Accel {
    let kvm = Hypervisor { accel: Accel::Kvm, ..with.clone() };
    let trial = Bed { qemu: Some(kvm), timeout: Some(TRIAL), ..Bed::default() };
    let booted = reachable().and_then(|()| {
        let job = Draft::of("name=kvm-trial scenario=selftest")?.finish()?;
        trial.succeeds(&job)
    });
    match booted {
        Ok(()) => Accel::Kvm,
        Err(why) => {
            let line = crate::fail::line(&why);
            note!("note: TCG is used, KVM does not run the image here ({})", shortened(&line));
            Accel::Tcg
        }
    }
}

fn reachable() -> Result<()> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| anyhow::anyhow!("/dev/kvm: {error}"))
}

fn shortened(line: &str) -> String {
    line.chars().take(160).collect()
}
