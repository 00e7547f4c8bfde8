//! Modern PCI: the four register windows that deviced mapped, and the doorbell.
//!
//! It reads no PCI configuration space, knows no BAR and never sees the MSI-X table: [`crate::startup`] has checked the
//! windows against both, and here every access is checked against its window once more, so that nothing that the
//! device says (a notify offset, a longer configuration) moves an access outside. Registers are reached by volatile
//! accesses of their own width; there is never a reference to them.
//!
//! Ordering between registers and ordinary memory is three functions of `barrier.rs`, called by [`Window`] and
//! [`PciDoorbell`] and nobody else: what was stored before a register write is visible to the device when it sees the
//! write, and nothing is loaded before a register read that it depends on has returned. A machine whose fences leave
//! device accesses out (RISC-V) needs a transport of its own.
//!
//! A device that was pulled out reads as all ones, which no status is: [`TransportError::Gone`].
//!
//! Specification: 4.1.3.1 PCI Device Layout, 4.1.4.3 Common configuration, 4.1.4.4 Notification, 4.1.4.5 ISR status,
//! 4.1.4.6 Device-specific configuration, 4.1.5.2 Available Buffer Notifications.
pub(crate) mod register;

use self::register::{Place, Register};
use super::{Doorbell, QueueId, RingAddresses, Transport, TransportError};
use crate::barrier;
use crate::spec::Features;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// Offsets in the common configuration (4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0;
    pub(super) const DEVICE_FEATURE: u64 = 4;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 8;
    pub(super) const DRIVER_FEATURE: u64 = 12;
    pub(super) const CONFIG_MSIX_VECTOR: u64 = 16;
    pub(super) const NUM_QUEUES: u64 = 18;
    pub(super) const DEVICE_STATUS: u64 = 20;
    pub(super) const CONFIG_GENERATION: u64 = 21;
    pub(super) const QUEUE_SELECT: u64 = 22;
    pub(super) const QUEUE_SIZE: u64 = 24;
    pub(super) const QUEUE_MSIX_VECTOR: u64 = 26;
    pub(super) const QUEUE_ENABLE: u64 = 28;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 30;
    pub(super) const QUEUE_DESC: u64 = 32;
    pub(super) const QUEUE_DRIVER: u64 = 40;
    pub(super) const QUEUE_DEVICE: u64 = 48;
}

/// What a status register reads as when nothing answers: bits 4 and 5 included, which no device of this driver sets.
const ALL_ONES: u8 = 0xff;

/// Registers mapped into the driver's address space, for as long as `'a`.
#[derive(Debug)]
pub struct Window<'a> {
    base: NonNull<u8>,
    len: u64,
    mapping: PhantomData<&'a ()>,
}

// SAFETY: a window is a range of registers; the mapping is the same for every thread of the address space, reads have
// no side effect that another thread could miss, and writes take `&mut`.
unsafe impl Send for Window<'_> {}
// SAFETY: as above; two threads that read registers at once do not interfere.
unsafe impl Sync for Window<'_> {}

impl Window<'_> {
    /// Takes `len` bytes of registers at `base`.
    ///
    /// # Safety
    /// For as long as the window or anything made from it lives, `base..base + len` is mapped, as device memory or as
    /// ordinary memory that plays it, may be accessed in naturally aligned units of 1, 2 and 4 bytes, and is used
    /// through no Rust reference. Whatever is written there, by whichever thread, breaks no promise of this program
    /// other than the device's protocol. The window is used as the kind of registers that it is, and together with windows
    /// of the same device only: as another kind's, [`Transport::set_config_u8`] would reach the addresses of queues.
    pub const unsafe fn new(base: NonNull<u8>, len: u64) -> Self {
        Self { base, len, mapping: PhantomData }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is mapped; a number, not a pointer.
    pub fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// Where a register of `R`'s width at `offset` is; `None` if it does not lie inside or is not aligned.
    fn register<R: Register>(&self, offset: u64) -> Option<Place<R>> {
        let inside = offset.checked_add(size_of::<R>() as u64)? <= self.len;
        let offset = usize::try_from(offset).ok().filter(|_| inside)?;
        // SAFETY: `offset` is inside the mapped range, checked above; `new`'s caller vouches for the range.
        let at = unsafe { self.base.add(offset) }.cast::<R>();
        // SAFETY: inside the mapping, aligned when it is used, and of a width that may be accessed (`new`).
        at.is_aligned().then(|| unsafe { Place::new(at) })
    }

    fn read<R: Register>(&self, offset: u64) -> Option<R> {
        let value = self.register::<R>(offset)?.load();
        barrier::register_before_memory();
        Some(value)
    }

    fn write<R: Register>(&mut self, offset: u64, value: R) -> Option<()> {
        let register = self.register::<R>(offset)?;
        barrier::memory_before_register();
        register.store(value);
        Some(())
    }
}

/// The four windows of a device; [`crate::startup::Authority::accept`] makes them from checked frames.
#[derive(Debug)]
pub struct Windows<'a> {
    common: Window<'a>,
    notify: Window<'a>,
    multiplier: u32,
    isr: Window<'a>,
    device: Window<'a>,
}

impl<'a> Windows<'a> {
    /// Puts windows together that the caller has checked itself, where there is no deviced: `multiplier` is the notify
    /// capability's `notify_off_multiplier` in bytes. A window that is too short makes the accesses fail.
    pub fn new(common: Window<'a>, notify: Window<'a>, multiplier: u32, isr: Window<'a>, device: Window<'a>) -> Self {
        Self { common, notify, multiplier, isr, device }
    }
}

/// A virtio device behind modern PCI registers.
///
/// ```
/// use drv_virtio_block::transport::{Transport, TransportError, pci::{PciTransport, Window, Windows}};
/// use core::ptr::NonNull;
///
/// let mut memory = [0_u64; 8];
/// let base = NonNull::from(&mut memory).cast::<u8>();
/// // SAFETY: 64 bytes of memory that plays the registers; nothing else touches it while the window lives.
/// let window = || unsafe { Window::new(base, 64) };
/// let transport = PciTransport::new(Windows::new(window(), window(), 4, window(), window()));
/// assert_eq!(transport.status(), Ok(0));
/// assert_eq!(transport.config_u32(64), Err(TransportError::NoSuchField { offset: 64 }));
/// ```
#[derive(Debug)]
pub struct PciTransport<'a> {
    windows: Windows<'a>,
}

impl<'a> PciTransport<'a> {
    /// Takes the registers over. Nothing is read or written yet.
    pub fn new(windows: Windows<'a>) -> Self {
        Self { windows }
    }

    fn read<R: Register>(&self, offset: u64) -> Result<R, TransportError> {
        self.windows.common.read(offset).ok_or(TransportError::Protocol)
    }

    fn write<R: Register>(&mut self, offset: u64, value: R) -> Result<(), TransportError> {
        self.windows.common.write(offset, value).ok_or(TransportError::Protocol)
    }

    /// A 64-bit register as two of 32 bits, low part first (4.1.3.1).
    fn write_pair(&mut self, offset: u64, value: u64) -> Result<(), TransportError> {
        self.write(offset, value as u32)?;
        self.write(offset + 4, (value >> 32) as u32)
    }

    fn select(&mut self, queue: QueueId) -> Result<(), TransportError> {
        self.write(common::QUEUE_SELECT, queue.0)
    }

    fn config<R: Register>(&self, offset: u32) -> Result<R, TransportError> {
        self.windows.device.read(u64::from(offset)).ok_or(TransportError::NoSuchField { offset })
    }

    /// The doorbell of the selected queue: its place is the device's word, so it is held against the window here.
    fn place_doorbell(&self, queue: QueueId) -> Result<PciDoorbell<'a>, TransportError> {
        let unit: u16 = self.read(common::QUEUE_NOTIFY_OFF)?;
        let offset = u64::from(unit) * u64::from(self.windows.multiplier);
        let register = self.windows.notify.register(offset).ok_or(TransportError::DoorbellOutside(queue))?;
        Ok(PciDoorbell { register, value: queue.0, mapping: PhantomData })
    }
}

// SAFETY: the status register is the device's own word (4.1.4.3.1: it presents 0 once the reset is done), and `Window`'s
// read orders what follows behind it; addresses are written as they were given. That the windows are a device's is the
// promise behind `Window::new`.
unsafe impl<'a> Transport for PciTransport<'a> {
    type Doorbell = PciDoorbell<'a>;

    fn status(&self) -> Result<u8, TransportError> {
        let status = self.read(common::DEVICE_STATUS)?;
        if status == ALL_ONES { Err(TransportError::Gone) } else { Ok(status) }
    }

    fn set_status(&mut self, status: u8) -> Result<(), TransportError> {
        self.write(common::DEVICE_STATUS, status)
    }

    fn device_features(&mut self) -> Result<Features, TransportError> {
        self.write(common::DEVICE_FEATURE_SELECT, 0_u32)?;
        let low: u32 = self.read(common::DEVICE_FEATURE)?;
        self.write(common::DEVICE_FEATURE_SELECT, 1_u32)?;
        let high: u32 = self.read(common::DEVICE_FEATURE)?;
        Ok(Features(u64::from(high) << 32 | u64::from(low)))
    }

    fn set_driver_features(&mut self, accepted: Features) -> Result<(), TransportError> {
        self.write(common::DRIVER_FEATURE_SELECT, 0_u32)?;
        self.write(common::DRIVER_FEATURE, accepted.0 as u32)?;
        self.write(common::DRIVER_FEATURE_SELECT, 1_u32)?;
        self.write(common::DRIVER_FEATURE, (accepted.0 >> 32) as u32)
    }

    fn num_queues(&self) -> Result<u16, TransportError> {
        self.read(common::NUM_QUEUES)
    }

    fn queue_max_size(&mut self, queue: QueueId) -> Result<u16, TransportError> {
        self.select(queue)?;
        self.read(common::QUEUE_SIZE)
    }

    fn set_queue_vector(&mut self, queue: QueueId, vector: u16) -> Result<u16, TransportError> {
        self.select(queue)?;
        self.write(common::QUEUE_MSIX_VECTOR, vector)?;
        self.read(common::QUEUE_MSIX_VECTOR)
    }

    fn set_config_vector(&mut self, vector: u16) -> Result<u16, TransportError> {
        self.write(common::CONFIG_MSIX_VECTOR, vector)?;
        self.read(common::CONFIG_MSIX_VECTOR)
    }

    unsafe fn program_queue(&mut self, queue: QueueId, rings: &RingAddresses) -> Result<(), TransportError> {
        self.select(queue)?;
        self.place_doorbell(queue)?;
        self.write(common::QUEUE_SIZE, rings.size())?;
        self.write_pair(common::QUEUE_DESC, rings.descriptors().0)?;
        self.write_pair(common::QUEUE_DRIVER, rings.driver().0)?;
        self.write_pair(common::QUEUE_DEVICE, rings.device().0)
    }

    fn enable_queue(&mut self, queue: QueueId) -> Result<(), TransportError> {
        self.select(queue)?;
        self.write(common::QUEUE_ENABLE, 1_u16)
    }

    fn doorbell(&mut self, queue: QueueId) -> Result<PciDoorbell<'a>, TransportError> {
        self.select(queue)?;
        self.place_doorbell(queue)
    }

    fn config_generation(&self) -> Result<u32, TransportError> {
        self.read::<u8>(common::CONFIG_GENERATION).map(u32::from)
    }

    fn config_u8(&self, offset: u32) -> Result<u8, TransportError> {
        self.config(offset)
    }

    fn config_u16(&self, offset: u32) -> Result<u16, TransportError> {
        self.config(offset)
    }

    fn config_u32(&self, offset: u32) -> Result<u32, TransportError> {
        self.config(offset)
    }

    fn set_config_u8(&mut self, offset: u32, value: u8) -> Result<(), TransportError> {
        self.windows.device.write(u64::from(offset), value).ok_or(TransportError::NoSuchField { offset })
    }

    fn take_interrupt_status(&mut self) -> Result<u8, TransportError> {
        self.windows.isr.read(0).ok_or(TransportError::Protocol)
    }
}

/// A queue's doorbell: where to write, and what; both fixed when the queue was programmed.
#[derive(Debug)]
pub struct PciDoorbell<'a> {
    register: Place<u16>,
    value: u16,
    mapping: PhantomData<&'a ()>,
}

// SAFETY: the place is that of a register which is mapped for every thread for `'a`; writing it needs no exclusion, since
// a write is one bus access and tells the device nothing but the queue's index.
unsafe impl Send for PciDoorbell<'_> {}
// SAFETY: as above.
unsafe impl Sync for PciDoorbell<'_> {}

impl Doorbell for PciDoorbell<'_> {
    /// One 16-bit write of the queue's index (4.1.5.2: `NOTIFICATION_DATA` is never negotiated).
    #[inline(always)]
    fn ring(&self) {
        barrier::memory_before_doorbell();
        self.register.store(self.value);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::dma::DeviceAddress;

    /// Memory that plays a device's registers: it keeps what is written and does nothing.
    struct Board {
        memory: NonNull<u64>,
    }

    const WORDS: usize = 32;
    const COMMON: usize = 0;
    const NOTIFY: usize = 64;
    const DEVICE: usize = 128;
    const ISR: usize = 192;

    impl Board {
        fn new() -> Self {
            Self { memory: NonNull::from(std::boxed::Box::leak(std::boxed::Box::new([0_u64; WORDS]))).cast() }
        }

        fn window(&self, offset: usize, len: u64) -> Window<'static> {
            // SAFETY: the memory is leaked, used through pointers only, and `offset + len` is inside for every caller.
            unsafe { Window::new(self.memory.cast::<u8>().add(offset), len) }
        }

        /// With a device configuration of 60 bytes and a notify window of 16.
        fn transport(&self) -> PciTransport<'static> {
            PciTransport::new(Windows::new(
                self.window(COMMON, 56),
                self.window(NOTIFY, 16),
                4,
                self.window(ISR, 1),
                self.window(DEVICE, 60),
            ))
        }

        fn peek<R: Register>(&self, base: usize, offset: u64) -> R {
            self.window(base, 64).read(offset).unwrap()
        }

        fn poke<R: Register>(&self, base: usize, offset: u64, value: R) {
            self.window(base, 64).write(offset, value).unwrap();
        }
    }

    fn rings() -> RingAddresses {
        let [descriptors, driver, device] =
            [0x1111_2222_3333_4440, 0x5555_6666_7777_8880, 0x9999_aaaa_bbbb_ccc0].map(DeviceAddress);
        // SAFETY: the board is registers alone; nothing follows these addresses.
        unsafe { RingAddresses::new(128, descriptors, driver, device) }
    }

    fn program(transport: &mut PciTransport<'_>, queue: QueueId) -> Result<(), TransportError> {
        // SAFETY: as for `rings`.
        unsafe { transport.program_queue(queue, &rings()) }
    }

    #[test]
    fn registers_stand_where_the_specification_puts_them() {
        let board = Board::new();
        let mut transport = board.transport();
        transport.set_status(0x0f).unwrap();
        transport.set_config_vector(0x0123).unwrap();
        transport.set_driver_features(Features(0x8877_6655_4433_2211)).unwrap();
        transport.set_queue_vector(QueueId(3), 0x0456).unwrap();
        program(&mut transport, QueueId(3)).unwrap();
        transport.enable_queue(QueueId(3)).unwrap();
        // 4.1.4.3, counted by hand.
        assert_eq!(board.peek::<u32>(COMMON, 8), 1);
        assert_eq!(board.peek::<u32>(COMMON, 12), 0x8877_6655);
        assert_eq!(board.peek::<u16>(COMMON, 16), 0x0123);
        assert_eq!(board.peek::<u8>(COMMON, 20), 0x0f);
        assert_eq!(board.peek::<u16>(COMMON, 22), 3);
        assert_eq!(board.peek::<u16>(COMMON, 24), 128);
        assert_eq!(board.peek::<u16>(COMMON, 26), 0x0456);
        assert_eq!(board.peek::<u16>(COMMON, 28), 1);
        let address = |offset| {
            u64::from(board.peek::<u32>(COMMON, offset)) | u64::from(board.peek::<u32>(COMMON, offset + 4)) << 32
        };
        let told = [address(32), address(40), address(48)].map(DeviceAddress);
        assert_eq!(told, [rings().descriptors, rings().driver, rings().device]);
    }

    #[test]
    fn what_the_device_says_is_read_where_the_specification_puts_it() {
        let board = Board::new();
        let mut transport = board.transport();
        board.poke(COMMON, 4, 0x0000_00ff_u32);
        board.poke(COMMON, 18, 5_u16);
        board.poke(COMMON, 21, 9_u8);
        board.poke(COMMON, 24, 512_u16);
        board.poke(ISR, 0, 2_u8);
        board.poke(DEVICE, 4, 0x8070_6050_u32);
        assert_eq!(transport.device_features(), Ok(Features(0xff_0000_00ff)));
        assert_eq!(board.peek::<u32>(COMMON, 0), 1, "the high half was read last");
        assert_eq!((transport.num_queues(), transport.config_generation()), (Ok(5), Ok(9)));
        assert_eq!(transport.queue_max_size(QueueId(2)), Ok(512));
        assert_eq!(board.peek::<u16>(COMMON, 22), 2);
        assert_eq!(transport.take_interrupt_status(), Ok(2));
        assert_eq!((transport.config_u8(5), transport.config_u16(6)), (Ok(0x60), Ok(0x8070)));
        assert_eq!(transport.config_u64(0), Ok(0x8070_6050_0000_0000));
    }

    #[test]
    fn a_doorbell_writes_its_queues_index_at_offset_times_multiplier() {
        let board = Board::new();
        let mut transport = board.transport();
        board.poke(COMMON, 30, 2_u16);
        program(&mut transport, QueueId(0x0102)).unwrap();
        transport.doorbell(QueueId(0x0102)).unwrap().ring();
        assert_eq!(board.peek::<u32>(NOTIFY, 8), 0x0102);
        assert_eq!([0, 4, 12].map(|offset| board.peek::<u32>(NOTIFY, offset)), [0; 3]);
    }

    #[test]
    fn a_doorbell_outside_the_notify_window_is_refused_before_the_queue_is_told_anything() {
        for (unit, inside) in [(3_u16, true), (4, false), (0xffff, false)] {
            let board = Board::new();
            let mut transport = board.transport();
            board.poke(COMMON, 30, unit);
            let told = program(&mut transport, QueueId(1));
            let expected = if inside { Ok(()) } else { Err(TransportError::DoorbellOutside(QueueId(1))) };
            assert_eq!(told, expected, "{unit}");
            assert_eq!(board.peek::<u16>(COMMON, 24), if inside { 128 } else { 0 });
            assert_eq!(transport.doorbell(QueueId(1)).is_ok(), inside);
        }
    }

    #[test]
    fn every_register_of_a_queue_is_reached_by_selecting_that_queue() {
        let board = Board::new();
        let mut transport = board.transport();
        // Whatever was selected before.
        let mut selects = |queue: u16, access: &dyn Fn(&mut PciTransport<'_>)| {
            board.poke(COMMON, 22, 0xffff_u16);
            access(&mut transport);
            assert_eq!(board.peek::<u16>(COMMON, 22), queue);
        };
        selects(1, &|t| assert_eq!(t.queue_max_size(QueueId(1)), Ok(0)));
        selects(2, &|t| assert_eq!(t.set_queue_vector(QueueId(2), 5), Ok(5)));
        selects(3, &|t| assert_eq!(program(t, QueueId(3)), Ok(())));
        selects(4, &|t| assert_eq!(t.enable_queue(QueueId(4)), Ok(())));
        selects(5, &|t| assert!(t.doorbell(QueueId(5)).is_ok()));
    }

    #[test]
    fn a_notify_multiplier_that_leads_beyond_32_bits_leads_outside() {
        let board = Board::new();
        board.poke(COMMON, 30, 2_u16);
        let windows =
            [board.window(COMMON, 56), board.window(NOTIFY, 16), board.window(ISR, 1), board.window(DEVICE, 60)];
        let [common, notify, isr, device] = windows;
        let mut transport = PciTransport::new(Windows::new(common, notify, 1 << 31, isr, device));
        assert_eq!(transport.doorbell(QueueId(1)).unwrap_err(), TransportError::DoorbellOutside(QueueId(1)));
    }

    #[test]
    fn a_field_beyond_the_configuration_window_does_not_exist() {
        let board = Board::new();
        let mut transport = board.transport();
        assert_eq!(transport.config_u32(56), Ok(0));
        for offset in [57, 58, 60, u32::MAX] {
            assert_eq!(transport.config_u32(offset), Err(TransportError::NoSuchField { offset }), "{offset}");
        }
        assert_eq!(transport.set_config_u8(60, 1), Err(TransportError::NoSuchField { offset: 60 }));
        // The last byte is one.
        assert_eq!((transport.set_config_u8(59, 7), transport.config_u8(59)), (Ok(()), Ok(7)));
    }

    #[test]
    fn an_access_that_is_not_aligned_is_not_made() {
        let board = Board::new();
        assert_eq!(board.window(0, 64).read::<u16>(1), None);
        assert_eq!(board.window(0, 64).write(2, 0_u32), None);
        assert_eq!(board.window(0, 64).read::<u32>(u64::MAX), None);
    }

    #[test]
    fn a_device_that_reads_as_all_ones_is_gone() {
        let board = Board::new();
        board.poke(COMMON, 20, 0xff_u8);
        assert_eq!(board.transport().status(), Err(TransportError::Gone));
        board.poke(COMMON, 20, 0xcf_u8);
        assert_eq!(board.transport().status(), Ok(0xcf));
    }
}
