//! `native run` and `native serve`: a device from the command line, and a run on it.
use crate::cli::{Device as Kind, Medium as MediumArgs, Run, Serve};
use crate::embedded::minimal::{Data, Device, Options, Worker};
use crate::event::Event;
use crate::ground::{Means, Process, pin, say};
use crate::memory::SharedMemory;
use crate::peer::PeerQueue;
use crate::peer::blkio::BlkioQueue;
use crate::peer_run::Peer;
use crate::rust_vmm::{Medium, Options as ServedOptions, Server, Stop};
use crate::seat::Step;
use crate::vhost_user::{Connection, Options as ConnectOptions};
use crate::{output, peer, peer_run};
use drv_virtio_block::interrupt::MAX_INTERRUPTS;
use drv_virtio_block::spec::feature;
use drv_virtio_block::transport::Transport;
use runner::fits::Disk;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use workload::params::{Driver, Params};
use workload::report::{Line, Note};

/// Memory for one queue's rings.
const PER_QUEUE: usize = 1 << 20;
/// Memory for scenarios and tables.
const SPARE: usize = 96 << 20;
/// Largest ring of a device that is served.
const QUEUE_SIZE: u16 = 1024;
/// `VIRTIO_F_RING_RESET`, which the driver does not implement.
const RING_RESET: u64 = 1 << 40;
/// Sectors of a device that was given no size.
const SECTORS: u64 = 1 << 21;

/// Runs one workload; whether there is a result.
pub fn run(run: &Run) -> bool {
    match try_run(run) {
        Ok(done) => done,
        Err(why) => {
            say(&Line::Failed(Note::new(format_args!("{why}"))));
            false
        }
    }
}

fn try_run(run: &Run) -> Result<bool, String> {
    let params = Params::parse(&run.params.join(" ")).map_err(|e| e.to_string())?;
    params.validate().map_err(|e| e.to_string())?;
    match (run.device, &run.socket) {
        (Some(Kind::Minimal), _) => on_minimal(run, &params),
        (Some(Kind::RustVmm), _) => on_rust_vmm(run, &params),
        (None, Some(socket)) => on_socket(run, socket, &params),
        (None, None) => Err("there is no device: give --socket or --device".to_owned()),
    }
}

/// Runs on a rust-vmm device in a thread of this process, over a socket all the same.
fn on_rust_vmm(run: &Run, params: &Params) -> Result<bool, String> {
    if run.stepped {
        return Err("the rust-vmm device has threads of its own: leave --stepped out".to_owned());
    }
    let folder = tempfile::tempdir().map_err(|e| format!("no folder for the socket: {e}"))?;
    let socket = folder.path().join("socket");
    let server = server(&socket, &run.medium, run.device_queues, run.max_queue_size)?;
    let stop = Stop::new().map_err(|e| format!("no eventfd left: {e}"))?;
    let (told, core) = (stop.clone(), run.device_core);
    let thread = std::thread::spawn(move || {
        // Its queues' threads inherit the core.
        core.map_or(Ok(()), pin).and_then(|()| server.run(&told).map_err(|e| e.to_string()))
    });
    let done = on_socket(&Run { device_core: None, ..run.clone() }, &socket, params);
    stop.stop();
    let outcome = thread.join().map_err(|_| "the device's thread panicked".to_owned())?;
    done.and_then(|done| outcome.map(|()| done).map_err(|e| format!("the rust-vmm device: {e}")))
}

/// A rust-vmm device that listens at `socket`.
fn server(socket: &Path, medium: &MediumArgs, queues: u16, queue_size: u16) -> Result<Server, String> {
    let of_file = |path: &PathBuf| {
        let opened =
            if medium.volatile_cache { Medium::cached_file(path) } else { Medium::file(path, medium.read_only) };
        opened.map_err(|e| format!("{}: {e}", path.display()))
    };
    let of_memory = || {
        Medium::ram(medium.disk_bytes.map_or(SECTORS, |bytes| bytes / 512)).map_err(|e| format!("the RAM disk: {e}"))
    };
    let disk = medium.disk.as_ref().map_or_else(of_memory, of_file)?;
    let (read_only, deviating) = (medium.read_only, medium.deviating);
    let options = ServedOptions { queues, queue_size, read_only, deviating, ..ServedOptions::default() };
    Server::bind(socket, disk, options).map_err(|e| format!("{}: {e}", socket.display()))
}

/// How long a back-end may take for one message, and to come up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs on the back-end behind a socket.
fn on_socket(run: &Run, socket: &Path, params: &Params) -> Result<bool, String> {
    if run.stepped || run.device_core.is_some() {
        return Err("a back-end of its own has its own thread: leave --stepped and --device-core out".to_owned());
    }
    let memory = memory(params)?;
    let options = ConnectOptions { patience: PATIENCE, vectors: params.vectors, queue_size: run.max_queue_size };
    if matches!(params.driver, Driver::VirtioDriver | Driver::Blkio) {
        let means = Means { memory, calls: Vec::new(), watch: None, stepper: None, cores: run.cores.clone() };
        let path = socket.to_str().ok_or("the socket's path is not UTF-8")?;
        return over_peer(&At::Socket(path), means, params);
    }
    // One connection, from here to the end: a back-end may serve no other.
    let (connection, transport) = Connection::open(socket, memory, options).map_err(|e| e.to_string())?;
    let means = Means {
        memory,
        calls: connection.calls().to_vec(),
        watch: Some(Arc::clone(connection.watch())),
        stepper: None,
        cores: run.cores.clone(),
    };
    Ok(go(transport, means, params))
}

/// Memory for the rings and buffers of a run.
fn memory(params: &Params) -> Result<&'static SharedMemory, String> {
    let jobs = usize::from(params.jobs());
    let queues = usize::from(params.queues_wished().max(params.numjobs)).max(1);
    let data = jobs * (usize::from(params.iodepth) * params.largest_block() as usize).next_multiple_of(4096);
    let spare = if params.icount || params.scenario.as_str() == "none" { 4 << 20 } else { SPARE };
    let bytes = queues * PER_QUEUE + data + spare;
    let memory =
        SharedMemory::new(bytes).map_err(|e| format!("no {bytes} bytes of memory for rings and buffers: {e}"))?;
    Ok(Box::leak(Box::new(memory)))
}

/// One eventfd per vector, as many as the driver can use.
fn calls(params: &Params) -> Result<Vec<Arc<Event>>, String> {
    let vectors = params.vectors.min(MAX_INTERRUPTS as u16);
    (0..vectors).map(|_| Event::new().map(Arc::new).map_err(|e| format!("no eventfd left: {e}"))).collect()
}

fn on_minimal(run: &Run, params: &Params) -> Result<bool, String> {
    let (memory, calls) = (memory(params)?, calls(params)?);
    let device = minimal(run, memory, &calls)?;
    let queues = usize::from(run.device_queues);
    let stepper: Option<&'static dyn Step> = if run.stepped {
        Some(Box::leak(Box::new(Stepped { device: device.clone(), queues, busy: AtomicBool::new(false) })))
    } else {
        None
    };
    let _worker: Option<Worker> = if run.stepped {
        None
    } else {
        Some(device.spawn((0..queues).collect(), run.device_core).map_err(|e| format!("the device's thread: {e}"))?)
    };
    let means = Means { memory, calls, watch: None, stepper, cores: run.cores.clone() };
    if matches!(params.driver, Driver::VirtioDriver | Driver::Blkio) {
        return over_peer(&At::Minimal(&device), means, params);
    }
    Ok(go(device.transport(), means, params))
}

/// Where a peer finds its device.
enum At<'a> {
    Socket(&'a str),
    Minimal(&'a Device),
}

/// Runs what the parameters say with the peer that they name.
fn over_peer(at: &At<'_>, means: Means, params: &Params) -> Result<bool, String> {
    let memory = [peer_run::memory(&means)];
    let failed = |why| format!("driver={}: {why}", params.driver);
    if params.driver == Driver::Blkio {
        let setup = peer_run::blkio_setup(params)?;
        // SAFETY: the memory is never unmapped.
        let queues = unsafe {
            match at {
                At::Socket(path) => peer::blkio::over_vhost_user(path, setup, &memory),
                At::Minimal(device) => peer::blkio::over_minimal(device, setup, &memory),
            }
        };
        let queues = queues.map_err(failed)?;
        let disk = queues.first().map_or(Ok((Disk::UNKNOWN, 0)), BlkioQueue::disk).map_err(failed)?;
        return peer_run::run(Peer::all(queues), means, params, disk);
    }
    let setup = peer_run::setup(params)?;
    // SAFETY: the memory is never unmapped.
    let queues = unsafe {
        match at {
            At::Socket(path) => peer::over_vhost_user(path, &setup, &memory),
            At::Minimal(device) => peer::over_minimal(device, &setup, &memory),
        }
    };
    let queues = queues.map_err(failed)?;
    let (disk, capacity) = queues.first().map_or(Ok((Disk::UNKNOWN, 0)), PeerQueue::disk).map_err(failed)?;
    let read_only = matches!(at, At::Minimal(device) if device.options().read_only);
    peer_run::run(Peer::all(queues), means, params, (Disk { read_only, ..disk }, capacity))
}

/// Runs what the parameters say on `transport`.
fn go<T: Transport<Doorbell: 'static> + Send + 'static>(transport: T, means: Means, params: &Params) -> bool {
    runner::run(&mut Process::new(Some(transport), means), params)
}

/// The minimal device of the command line.
fn minimal(run: &Run, memory: &'static SharedMemory, calls: &[Arc<Event>]) -> Result<Device, String> {
    if run.medium.disk.is_some() {
        return Err("the minimal device has no file: give --disk-bytes, or --device=rust-vmm".to_owned());
    }
    let mut base = Options::default();
    if run.medium.deviating {
        // It offers a bit that is not implemented, which must stay out, and insists on two that are.
        base.features |= RING_RESET;
        base.insists_on = feature::EVENT_IDX | feature::INDIRECT_DESC;
    }
    let options = Options {
        features: if run.device_queues > 1 { base.features } else { base.features & !feature::MQ },
        sectors: run.medium.disk_bytes.map_or(SECTORS, |bytes| bytes / 512),
        queues: run.device_queues,
        queue_size: run.max_queue_size,
        data: if run.medium.disk_bytes.is_some() { Data::Ram } else { Data::Null },
        read_only: run.medium.read_only,
        ..base
    };
    let duplicate = |call: &Arc<Event>| call.as_fd().try_clone_to_owned().map_err(|e| format!("no eventfd left: {e}"));
    let calls: Vec<OwnedFd> = calls.iter().map(duplicate).collect::<Result<_, _>>()?;
    let regions = [(memory.base().as_ptr(), memory.len())];
    // SAFETY: the memory is never unmapped, zeroed from the start, and used by the driver's rules alone.
    unsafe { Device::new(options, &regions, calls) }.map_err(|e| format!("the device: {e}"))
}

/// A device that the submitters step.
struct Stepped {
    device: Device,
    queues: usize,
    /// Somebody is at it.
    busy: AtomicBool,
}

impl Step for Stepped {
    fn step(&self) {
        // Acquire and release: whoever steps next sees the queues as they were left.
        if self.busy.load(Ordering::Relaxed) || self.busy.swap(true, Ordering::Acquire) {
            return;
        }
        for queue in 0..self.queues {
            self.device.step(queue);
        }
        self.busy.store(false, Ordering::Release);
    }
}

/// Serves a device until the process is ended, or its one client is gone; false: it could not.
pub fn serve(serve: &Serve) -> bool {
    let served = server(&serve.socket, &serve.medium, serve.queues, QUEUE_SIZE).and_then(|server| {
        output::line(format_args!("ready"));
        let stop = Stop::new().map_err(|e| e.to_string())?;
        if serve.once { server.run_once(&stop) } else { server.run(&stop) }.map_err(|e| e.to_string())
    });
    if let Err(why) = &served {
        output::complain(format_args!("native: {why}"));
    }
    served.is_ok()
}
