//! The device's configuration, read as one state, checked, and turned into facts.
//!
//! Several fields, or one of 64 bits, are read between two equal readings of the generation; a device that changes it
//! all the time is refused after a bounded number of attempts. A field is read only if its feature was negotiated, and
//! no field before `FEATURES_OK`. Values that mean "no limit" or "one" by the specification or by what devices in the
//! field send are translated here, once; values that mean nothing are the device's fault, never carried on with.
//!
//! Specification: 2.5 Device Configuration Space, 5.2.4 Device configuration layout, 5.2.5 Device Initialization.
#![forbid(unsafe_code)]
use super::error::ConfigError;
use crate::geometry::{Geometry, RangeLimits, Topology, is_block_size};
use crate::spec::{Features, SECTOR, config, feature};
use crate::transport::{Transport, TransportError};

/// Attempts at a consistent read. A configuration changes when somebody resizes a disk: one retry is the rule.
const ATTEMPTS: u32 = 16;

/// Runs `read` until the generation is the same before and after it.
fn consistently<T: Transport, V>(
    transport: &T,
    read: impl Fn(&T) -> Result<V, TransportError>,
) -> Result<V, ConfigError> {
    let mut before = transport.config_generation()?;
    for _ in 0..ATTEMPTS {
        let value = read(transport)?;
        let after = transport.config_generation()?;
        if before == after {
            return Ok(value);
        }
        before = after;
    }
    Err(ConfigError::Unstable)
}

/// Reads the capacity, in sectors.
pub(super) fn capacity<T: Transport>(transport: &T) -> Result<u64, ConfigError> {
    check_capacity(consistently(transport, |t| t.config_u64(config::CAPACITY))?)
}

/// Fields as the device sent them; zero where the feature is missing.
#[derive(Default)]
struct Raw {
    capacity: u64,
    size_max: u32,
    seg_max: u32,
    block_size: u32,
    topology: Topology,
    writeback: u8,
    queues: u16,
    /// Sectors, segments, alignment.
    discard: [u32; 3],
    /// Sectors, segments.
    write_zeroes: [u32; 2],
    may_unmap: u8,
}

impl Raw {
    fn read<T: Transport>(t: &T, features: Features) -> Result<Self, TransportError> {
        let mut raw = Self { capacity: t.config_u64(config::CAPACITY)?, ..Self::default() };
        if features.has(feature::SIZE_MAX) {
            raw.size_max = t.config_u32(config::SIZE_MAX)?;
        }
        if features.has(feature::SEG_MAX) {
            raw.seg_max = t.config_u32(config::SEG_MAX)?;
        }
        if features.has(feature::BLK_SIZE) {
            raw.block_size = t.config_u32(config::BLK_SIZE)?;
        }
        if features.has(feature::TOPOLOGY) {
            raw.topology.physical_block_exp = t.config_u8(config::PHYSICAL_BLOCK_EXP)?;
            raw.topology.alignment_offset = t.config_u8(config::ALIGNMENT_OFFSET)?;
            raw.topology.min_io_size = t.config_u16(config::MIN_IO_SIZE)?;
            raw.topology.opt_io_size = t.config_u32(config::OPT_IO_SIZE)?;
        }
        if features.has(feature::CONFIG_WCE) {
            raw.writeback = t.config_u8(config::WRITEBACK)?;
        }
        if features.has(feature::MQ) {
            raw.queues = t.config_u16(config::NUM_QUEUES)?;
        }
        if features.has(feature::DISCARD) {
            let fields = [config::MAX_DISCARD_SECTORS, config::MAX_DISCARD_SEG, config::DISCARD_SECTOR_ALIGNMENT];
            for (value, field) in raw.discard.iter_mut().zip(fields) {
                *value = t.config_u32(field)?;
            }
        }
        if features.has(feature::WRITE_ZEROES) {
            let fields = [config::MAX_WRITE_ZEROES_SECTORS, config::MAX_WRITE_ZEROES_SEG];
            for (value, field) in raw.write_zeroes.iter_mut().zip(fields) {
                *value = t.config_u32(field)?;
            }
            raw.may_unmap = t.config_u8(config::WRITE_ZEROES_MAY_UNMAP)?;
        }
        Ok(raw)
    }
}

/// What the configuration came to.
pub(super) struct Facts {
    pub(super) geometry: Geometry,
    /// How many queues the block device has.
    pub(super) queues: u16,
    /// Of what was negotiated: operations whose limits allow no request.
    pub(super) unusable: Features,
}

/// Reads and checks everything.
pub(super) fn read<T: Transport>(transport: &T, features: Features) -> Result<Facts, ConfigError> {
    let raw = consistently(transport, |t| Raw::read(t, features))?;
    let block_size = if features.has(feature::BLK_SIZE) { check_block_size(raw.block_size)? } else { SECTOR as u32 };
    let queues = match features.has(feature::MQ).then_some(raw.queues) {
        None => 1,
        Some(0) => return Err(ConfigError::NoQueue),
        Some(n) => n,
    };
    let mut geometry = Geometry::plain(check_capacity(raw.capacity)?);
    geometry.block_size = block_size;
    // Without the feature no number is promised; 0 is sent by devices that mean one. One is right for both.
    geometry.seg_max = raw.seg_max.max(1);
    geometry.size_max = check_size_max(raw.size_max)?;
    geometry.read_only = features.has(feature::RO);
    geometry.writeback = write_cache(features, raw.writeback);
    let mut unusable = 0;
    if features.has(feature::DISCARD) {
        let [sectors, segments, alignment] = raw.discard;
        geometry.discard = limits([sectors, segments], block_size, alignment, false);
        unusable |= geometry.discard.map_or(feature::DISCARD, |_| 0);
    }
    if features.has(feature::WRITE_ZEROES) {
        geometry.write_zeroes = limits(raw.write_zeroes, block_size, 1, raw.may_unmap != 0);
        unusable |= geometry.write_zeroes.map_or(feature::WRITE_ZEROES, |_| 0);
    }
    geometry.features = features.without(unusable);
    if features.has(feature::TOPOLOGY) {
        geometry.topology = Some(check_topology(raw.topology, block_size)?);
    }
    Ok(Facts { geometry, queues, unusable: Features(unusable) })
}

fn check_capacity(sectors: u64) -> Result<u64, ConfigError> {
    sectors.checked_mul(SECTOR).map(|_| sectors).ok_or(ConfigError::Capacity(sectors))
}

fn check_block_size(bytes: u32) -> Result<u32, ConfigError> {
    if is_block_size(bytes) { Ok(bytes) } else { Err(ConfigError::BlockSize(bytes)) }
}

/// 0, which also stands for the missing feature, means no limit (qemu-storage-daemon offers `SIZE_MAX` so).
fn check_size_max(bytes: u32) -> Result<u32, ConfigError> {
    match bytes {
        0 => Ok(u32::MAX),
        bytes if u64::from(bytes) < SECTOR => Err(ConfigError::SizeMax(bytes)),
        bytes => Ok(bytes),
    }
}

fn check_topology(topology: Topology, block_size: u32) -> Result<Topology, ConfigError> {
    let exp = topology.physical_block_exp;
    let fits = u32::from(exp) <= block_size.leading_zeros();
    if fits { Ok(topology) } else { Err(ConfigError::PhysicalBlock(exp)) }
}

/// 5.2.5.2: `CONFIG_WCE` lets the device say; FLUSH alone must be taken for a write cache, neither for none. A value
/// that is neither 0 nor 1 is taken for a cache too: the side on which no data is lost.
fn write_cache(features: Features, writeback: u8) -> bool {
    if features.has(feature::CONFIG_WCE) { writeback != 0 } else { features.has(feature::FLUSH) }
}

/// A device that allows no segment in a request, or less than a logical block, does not have the operation: no request
/// can be made. Any alignment will do, since it is a hint for where to cut.
fn limits([max_sectors, segments]: [u32; 2], block: u32, alignment: u32, may_unmap: bool) -> Option<RangeLimits> {
    let usable = segments > 0 && u64::from(max_sectors) * SECTOR >= u64::from(block);
    usable.then(|| RangeLimits { max_sectors, alignment: alignment.max(1), may_unmap })
}
