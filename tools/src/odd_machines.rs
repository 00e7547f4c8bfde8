//! Machines and devices that differ from the ones that the tool asks QEMU for: the image runs there, or says in one line
//! what they are.
//!
//! The differences are made the way anybody makes them who cannot change the tool: a program in QEMU's place rewrites
//! the arguments and starts QEMU.
use crate::job::{Draft, Job};
use crate::lab::{Lab, Size, refused};
use crate::run::Bed;
use crate::scenarios::{Scenario, scenario};
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::PermissionsExt;

/// What the image runs on: a name, and a shell's edit of each argument `$a`.
const RUNS: [(&str, &str); 7] = [
    ("a second notification structure behind I/O ports", "virtio-blk-pci*) a=\"$a,modern-pio-notify=on\";;"),
    ("the machine pc, without PCI Express", "q35,usb=off) a=pc,usb=off;;"),
    ("no HPET", "q35,usb=off) a=q35,usb=off,hpet=off;;"),
    (
        "a device behind a root of its own",
        "virtio-blk-pci*) args+=(pxb-pcie,id=pxb,bus_nr=32,bus=pcie.0 -device \
         pcie-root-port,id=rp,bus=pxb,slot=3,chassis=9 -device); a=\"$a,bus=rp\";;",
    ),
    ("a processor without pages of 1 GiB", "max) a=max,pdpe1gb=off;;"),
    ("the processor qemu64", "max) a=qemu64;;"),
    ("a transitional device", "virtio-blk-pci*) a=\"${a/disable-legacy=on/disable-legacy=off}\";;"),
];

/// What the image refuses, and a word of the line that says why.
const REFUSED: [(&str, &str, &str); 5] = [
    (
        "a legacy device",
        "virtio-blk-pci*) a=\"${a/disable-legacy=on/disable-legacy=off,disable-modern=on}\";;",
        "disable-modern=off",
    ),
    ("a processor of 32 bits", "max) a=qemu32;;", "no 64-bit mode: use -cpu max"),
    ("a processor without nx", "max) a=max,nx=off;;", "(nx): use -cpu max"),
    ("the machine microvm", "q35,usb=off) a=microvm,pcie=on;;", "use -M q35"),
    ("too few vCPUs", "*,maxcpus=*) a=1,maxcpus=2;;", "2 jobs need 2 vcpus here, the machine has 1"),
];

/// The scenarios.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("machines and devices that are not the usual ones are driven all the same", Size::Quick, |lab| {
            RUNS.iter().take(lab.size.pick(5, 7, 7)).try_for_each(|(name, edit)| {
                let outcome = on(lab, edit, "queues=2 numjobs=2 mode=interrupt rw=randrw iodepth=4 number_ios=300");
                let boot = outcome.with_context(|| (*name).to_string())?.boot;
                ensure!(boot.rung.as_str() == "vector-per-queue", "{name}: the rung is {}", boot.rung);
                Ok(())
            })
        }),
        scenario("a machine that the image does not run on is named in one line", Size::Quick, |lab| {
            REFUSED.iter().try_for_each(|(name, edit, word)| {
                let outcome = on(lab, edit, "numjobs=2 mode=polled number_ios=1");
                refused(outcome, word).with_context(|| (*name).to_string())
            })
        }),
        scenario("blocks of 4096 bytes are verified, on the host too", Size::Quick, |lab| {
            let words = "rw=randrw verify=crc32c bssplit=4k/80:64k/20 queues=2 numjobs=2 vectors=3 mode=interrupt \
                         iodepth=8 number_ios=1500 size=3m";
            let (_folder, mut job) = lab.job_on_file(words)?;
            job.machine.device.block_size = 4096;
            lab.verified_job(&job).map(drop)
        }),
        scenario(
            "memory follows from the job, and what is beyond the machine's is named in one line",
            Size::Quick,
            |lab| {
                for words in ["via=blockd queues=4 clients=4", "queues=32 numjobs=32"] {
                    lab.boot(&format!("{words} mode=polled iodepth=4 number_ios=400")).context(words)?;
                }
                let mut job = Draft::of("via=blockd queues=4 clients=4 mode=polled number_ios=1")?.finish()?;
                job.machine.memory_mib = 48;
                refused(lab.bed.watched(&job, &mut |_, _| Ok(())), "more memory than the machine's")
            },
        ),
    ]
}

/// Runs a job on a machine whose arguments were rewritten.
fn on(lab: &Lab, edit: &str, words: &str) -> Result<crate::run::Outcome> {
    let folder = tempfile::tempdir().context("making a folder for a program in QEMU's place")?;
    let mut with = lab.bed.qemu.clone().context("there is no QEMU")?;
    let script = format!(
        "#!/bin/bash\nargs=()\nfor a in \"$@\"; do case \"$a\" in {edit} esac; args+=(\"$a\"); done\n\
         exec {} \"${{args[@]}}\"\n",
        with.qemu.path.display()
    );
    with.qemu.path = folder.path().join("qemu");
    std::fs::write(&with.qemu.path, script)?;
    std::fs::set_permissions(&with.qemu.path, std::fs::Permissions::from_mode(0o755))?;
    let bed = Bed { qemu: Some(with), ..lab.bed.clone() };
    let job: Job = Draft::of(words)?.finish()?;
    bed.watched(&job, &mut |_, _| Ok(()))
}
