//! The machine that QEMU emulates, as a command line.
//!
//! Devices and options as bare-metal images need them: q35 without anything that is not asked for, the serial port on
//! standard output, QMP on standard input (a connected socket: no path, no race), an exit port, one virtio-blk device
//! whose queues run in I/O threads. Knows nothing of jobs; starts nothing.
use crate::disk::{Disk, NODE};
use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;
use std::ffi::OsString;
use std::path::Path;

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accel {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accel {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The virtio-blk device as QEMU is told to build it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// `num-queues`.
    pub(crate) queues: u16,
    /// MSI-X vectors; 0 removes the capability.
    pub(crate) vectors: u16,
    /// Entries of each ring, a power of two up to 1024.
    pub(crate) queue_size: u16,
    /// Offers `VIRTIO_F_EVENT_IDX`.
    pub(crate) event_idx: bool,
    /// Offers `VIRTIO_F_INDIRECT_DESC`.
    pub(crate) indirect: bool,
    /// Logical and physical block size.
    pub(crate) block_size: u32,
    /// Offers DISCARD and WRITE ZEROES.
    pub(crate) ranges: bool,
}

/// Everything about the machine but the image and its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Count instructions: one thread, virtual time driven by the instruction count.
    pub(crate) icount: bool,
    pub(crate) vcpus: u16,
    /// 0: the device works in the vCPU's own thread, within the store to its doorbell.
    pub(crate) iothreads: u16,
    pub(crate) memory_mib: u64,
    pub(crate) disk: Disk,
    pub(crate) device: Device,
}

impl Machine {
    /// QEMU's arguments, without its name.
    pub(crate) fn arguments(&self, accel: Accel, image: &Path, append: &str) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut push = |option: &str, value: &str| {
            args.push(option.into());
            args.push(value.into());
        };
        push("-M", "q35,usb=off");
        push("-cpu", "max");
        push("-m", &format!("{}M", self.memory_mib));
        // With one possible CPU, TCG drops the guest's fences, as if no device ran beside it, and wake-ups are lost:
        // measured, 13 of 60 half-second runs at depth 1 hung. A second possible CPU, never plugged, brings them back.
        push("-smp", &format!("{},maxcpus={}", self.vcpus, self.vcpus.max(2)));
        match (self.icount, accel) {
            (true, _) => {
                push("-accel", "tcg,thread=single");
                push("-icount", "shift=0,sleep=off");
            }
            (false, Accel::Tcg) => push("-accel", "tcg,thread=multi"),
            (false, Accel::Kvm) => push("-accel", "kvm"),
        }
        push("-display", "none");
        // Not `stdio`: that would read standard input too, and take bytes away from QMP.
        push("-chardev", "file,id=serial,path=/proc/self/fd/1");
        push("-serial", "chardev:serial");
        push("-chardev", "socket,id=qmp,fd=0");
        push("-mon", "chardev=qmp,mode=control");
        push("-device", "isa-debug-exit,iobase=0xf4,iosize=4");
        push("-blockdev", &self.disk.blockdev().to_string());
        for index in 0..self.iothreads {
            push("-object", &format!("iothread,id=io{index}"));
        }
        push("-device", &self.device());
        push("-append", append);
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
            args.push(flag.into());
        }
        args.push("-kernel".into());
        args.push(image.into());
        args
    }

    /// One I/O thread or none: the syntax that every QEMU reads. Several: the JSON that maps queues to them in turn.
    fn device(&self) -> String {
        let device = &self.device;
        let onoff = |on| if on { "on" } else { "off" };
        if self.iothreads <= 1 {
            let place = if self.iothreads == 0 { "ioeventfd=off" } else { "iothread=io0" };
            return format!(
                "virtio-blk-pci,id=vblk,drive={NODE},num-queues={},vectors={},disable-legacy=on,queue-size={},\
                 {place},event_idx={},indirect_desc={},logical_block_size={size},physical_block_size={size}{ranges}",
                device.queues,
                device.vectors,
                device.queue_size,
                onoff(device.event_idx),
                onoff(device.indirect),
                size = device.block_size,
                ranges = if device.ranges { "" } else { ",discard=off,write-zeroes=off" },
            );
        }
        let threads: Vec<_> = (0..self.iothreads).map(|index| json!({"iothread": format!("io{index}")})).collect();
        json!({
            "driver": "virtio-blk-pci", "id": "vblk", "drive": NODE,
            "num-queues": device.queues, "vectors": device.vectors,
            "disable-legacy": "on", "queue-size": device.queue_size,
            "iothread-vq-mapping": threads,
            "event_idx": device.event_idx, "indirect_desc": device.indirect,
            "logical_block_size": device.block_size, "physical_block_size": device.block_size,
            "discard": device.ranges, "write-zeroes": device.ranges,
        })
        .to_string()
    }

    /// What this QEMU, or this accelerator, cannot do.
    pub(crate) fn check(&self, major: u32, accel: Accel) -> Result<()> {
        if self.iothreads > 1 && major < 9 {
            bail!("iothreads={} needs QEMU 9 or later, this is {major}: use iothreads=1", self.iothreads);
        }
        if self.icount && accel == Accel::Kvm {
            bail!("icount counts translated instructions: use --accel=tcg or leave --accel out");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Draft;

    fn line(words: &str) -> String {
        let job = Draft::of(words).unwrap().finish().unwrap();
        let args = job.machine.arguments(Accel::Tcg, Path::new("/image"), &job.params.to_string());
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn what_the_job_asks_for_is_what_the_device_offers() {
        let line = line("queues=2 vectors=3 queue_size=128 event_idx=off indirect=off runtime=1");
        for part in ["num-queues=2", "vectors=3", "queue-size=128", "event_idx=off", "indirect_desc=off"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn the_device_has_a_thread_except_where_a_driver_that_rings_for_every_request_is_counted() {
        assert!(line("icount=on").contains("iothread=io0"));
        let line = line("driver=virtio-drivers icount=on");
        assert!(line.contains("ioeventfd=off") && !line.contains("iothread"), "{line}");
    }

    #[test]
    fn counting_uses_one_thread_and_virtual_time() {
        let line = line("icount=on");
        assert!(line.contains("-accel tcg,thread=single -icount shift=0,sleep=off"), "{line}");
        assert!(line.contains("-smp 1,maxcpus=2 "), "{line}");
    }

    #[test]
    fn the_image_reads_back_what_it_is_told() {
        let job = Draft::of("rw=randrw bssplit=512/20:4k/80 iodepth=32 number_ios=10").unwrap().finish().unwrap();
        let text = job.params.to_string();
        assert_eq!(workload::params::Params::parse(&text), Ok(job.params));
    }

    #[test]
    fn several_io_threads_need_a_qemu_that_maps_queues_to_them() {
        let mut job = Draft::of("iothreads=2 runtime=1").unwrap().finish().unwrap();
        assert!(job.machine.check(7, Accel::Tcg).is_err());
        assert!(job.machine.check(9, Accel::Tcg).is_ok());
        assert!(job.machine.device().contains("iothread-vq-mapping"));
        job.machine.icount = true;
        assert!(job.machine.check(9, Accel::Kvm).is_err());
    }
}
