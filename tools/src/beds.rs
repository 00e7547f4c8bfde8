//! What the scenarios' devices need: built and installed once, or the reason why a device is left out.
use crate::accel;
use crate::cli::Test;
use crate::conformance::Device;
use crate::fail;
use crate::image;
use crate::lab::{Lab, Size};
use crate::machine::Accel;
use crate::native::Native;
use crate::native_scenarios;
use crate::run::Bed;
use crate::setup;
use crate::vm::Hypervisor;
use anyhow::Result;

/// A bed, or why there is none.
type Ready = Result<Bed, String>;

/// The beds of all devices.
pub(crate) struct Beds {
    qemu: Ready,
    native: Ready,
    /// Why there is no qemu-storage-daemon, if there is none.
    no_daemon: Option<String>,
    /// Why there is no valgrind, if there is none.
    no_valgrind: Option<String>,
}

impl Default for Beds {
    fn default() -> Self {
        Self {
            qemu: Err("the image does not build".into()),
            native: Err("the native bench does not build".into()),
            no_daemon: None,
            no_valgrind: None,
        }
    }
}

impl Beds {
    /// Builds the image, and looks for a QEMU to boot it.
    pub(crate) fn add_qemu(&mut self, args: &Test) -> Result<()> {
        let image = image::given_or_built(args.image.as_deref())?;
        let found = || -> Result<Bed> {
            let qemu = setup::qemu(args.qemu.as_deref(), !args.no_setup)?;
            let mut with = Hypervisor { qemu, image, accel: Accel::Tcg };
            with.accel = accel::choose(&args.accel, &with)?;
            Ok(Bed { qemu: Some(with), ..Bed::default() })
        };
        self.qemu = found().map_err(|error| fail::line(&error));
        Ok(())
    }

    /// Builds the native bench, and looks for a qemu-storage-daemon to drive and a valgrind to count with.
    pub(crate) fn add_native(&mut self, args: &Test) -> Result<()> {
        let program = image::native(args.native.as_deref())?;
        let install = !args.no_setup;
        let storage = kept(setup::storage_daemon(install), &mut self.no_daemon);
        let valgrind = kept(setup::valgrind(install), &mut self.no_valgrind);
        self.native = Ok(Bed { native: Some(Native { program, storage, valgrind }), ..Bed::default() });
        Ok(())
    }

    /// What scenarios on `device` are run with, or why they cannot be.
    pub(crate) fn lab(&self, device: Device, size: Size) -> Result<Lab, String> {
        let bed = match (device, &self.no_daemon) {
            (Device::Qemu, _) => &self.qemu,
            (Device::StorageDaemon, Some(why)) => return Err(why.clone()),
            _ => &self.native,
        };
        Ok(Lab { bed: bed.clone()?, size, place: device.place() })
    }

    /// What scenarios on the device inside the native bench are run with, counted ones if `counted`.
    pub(crate) fn inside(&self, size: Size, counted: bool) -> Result<Lab, String> {
        match &self.no_valgrind {
            Some(why) if counted => Err(why.clone()),
            _ => Ok(Lab { bed: self.native.clone()?, size, place: native_scenarios::PLACE }),
        }
    }
}

/// What was found; why it was not is kept.
fn kept<T>(found: Result<T>, why_not: &mut Option<String>) -> Option<T> {
    found.map_err(|error| *why_not = Some(fail::line(&error))).ok()
}
