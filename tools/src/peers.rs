//! What the drivers to compare with cannot do, refused before anything starts.
//!
//! Knows words only. Whoever runs a peer refuses the same again, with less to go by.
use anyhow::{Result, bail, ensure};
use workload::params::{Driver, Indirect, Mode, Params, Rw, Submit, Verify};

/// Requests that `virtio-drivers` has room for: one descriptor each with indirect tables, three without.
const RING: u16 = 16;

/// Whether the driver can only be polled, so that nobody has to say so.
pub(crate) fn is_polled(driver: Driver) -> bool {
    driver == Driver::VirtioDrivers
}

/// Whether the driver's count depends on how far the device has come: `virtio-drivers` asks after each request whether to
/// ring, and a device beside it wants to be rung now and then, as it happens. One that works within the doorbell's store
/// wants it for every request, each time. (In timed runs with `event_idx=off` it rings less: by as much is the count, some
/// 11 instructions in 470, the upper end.)
pub(crate) fn needs_synchronous_device(params: &Params) -> bool {
    params.icount && params.driver == Driver::VirtioDrivers
}

/// Refuses what the driver cannot do under QEMU. `said` tells which keys were given.
pub(crate) fn under_qemu(params: &Params, said: impl Fn(&str) -> bool) -> Result<()> {
    match params.driver {
        Driver::VirtioDrivers => virtio_drivers(params, said),
        _ => Ok(()),
    }
}

fn virtio_drivers(params: &Params, said: impl Fn(&str) -> bool) -> Result<()> {
    let driver = params.driver;
    ensure!(params.mode == Mode::Polled, "driver={driver} has no interrupt vectors: use mode=polled");
    ensure!(params.verify == Verify::None, "driver={driver} does not verify: use driver=ours");
    ensure!(!trims(params.rw), "driver={driver} reads and writes only: leave rw={} out", params.rw);
    let single = params.numjobs == 1 && params.queues_wished() == 1 && params.submit != Submit::Shared;
    ensure!(single, "driver={driver} has one queue for one submitter: leave numjobs, queues and submit=shared out");
    ensure!(
        !params.icount || !said("iothreads"),
        "driver={driver} is counted without I/O threads: leave iothreads out"
    );
    ensure!(!said("queue_size"), "driver={driver} has a ring of {RING} and no other: leave queue_size out");
    let room = if params.indirect == Indirect::Off { RING / 3 } else { RING };
    let depth = if params.icount { params.iodepth_batch_submit } else { params.iodepth };
    let indirect = params.indirect;
    ensure!(depth <= room, "driver={driver} has room for {room} requests with indirect={indirect}: lower iodepth");
    Ok(())
}

/// Refuses what the driver cannot do natively.
pub(crate) fn natively(params: &Params) -> Result<()> {
    let driver = params.driver;
    if driver == Driver::Ours {
        return Ok(());
    }
    ensure!(driver != Driver::VirtioDrivers, "driver={driver} runs in the image only: use backend=qemu");
    ensure!(driver != Driver::Linux, "driver={driver} runs in a guest: leave backend out, or give backend=qemu");
    ensure!(params.submit != Submit::Mutex, "submit=mutex puts the lock around ours: leave driver={driver} out");
    if matches!(driver, Driver::VirtioDriver | Driver::Blkio) {
        ensure!(params.verify == Verify::None, "driver={driver} does not verify: use driver=ours");
        let suppressed = params.event_idx || driver != Driver::Blkio;
        ensure!(suppressed, "driver={driver} takes event indices wherever they are offered: leave event_idx=off out");
        let direct = params.indirect != Indirect::On && !trims(params.rw);
        ensure!(direct, "driver={driver} reads and writes through direct chains: leave indirect=on and trims out");
        if params.submit == Submit::Shared || (params.queues > 0 && params.numjobs > params.queues) {
            bail!("driver={driver} has no path for many submitters: give a queue for each job");
        }
    }
    Ok(())
}

fn trims(rw: Rw) -> bool {
    matches!(rw, Rw::Trim | Rw::RandTrim)
}
