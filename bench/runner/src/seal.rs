//! The last writes of a verified run: every sector's generation, and the seal, so that the host can check the disk.
use crate::buffers::{Places, Scattered};
use crate::drive::{Drive, Work};
use crate::ground::{Ground, Piece};
use crate::runs::Returned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use drv_virtio_block::geometry::Geometry;
use workload::params::{Params, SECTOR};
use workload::pattern::{Op, Region};
use workload::verify::table::Layout;

/// Table sectors written at once.
const STRIDE: u64 = 64;
/// Memory that writing a table takes.
pub(crate) const BYTES: usize = STRIDE as usize * SECTOR as usize;

/// Writes table and seal through the first job's drive.
pub(crate) fn write<G: Ground, D: Drive<Scattered>>(
    ground: &G,
    mut returned: Vec<Returned<D>>,
    params: &Params,
    disk: &Geometry,
) -> Result<Vec<Returned<D>>, String> {
    if disk.read_only || !params.rw.changes() {
        return Ok(returned);
    }
    let mut words = Vec::new();
    for (job, number) in returned.iter_mut().zip(0..) {
        let region = Region::new(params, number, disk.capacity()).map_err(|e| e.to_string())?;
        collect(&mut words, region, core::mem::take(&mut job.words), params.jobs());
    }
    let drive = &mut returned.first_mut().ok_or("no job ran")?.drive;
    let memory = ground.dma(BYTES).ok_or("no memory for the table")?;
    let extent = Extent { sectors: disk.capacity(), block: disk.block_size.div_ceil(SECTOR) };
    write_table(drive, memory, &words, extent, params.size / u64::from(SECTOR))?;
    Ok(returned)
}

/// Adds what one of `jobs` jobs knows of its region. These are four bytes for each sector, so memory is taken once, and
/// those of a single job are not copied.
pub(crate) fn collect(words: &mut Vec<u32>, region: Region, own: Vec<u32>, jobs: u16) {
    if jobs == 1 && region.first == 0 {
        *words = own;
        return;
    }
    words.reserve_exact((own.len() * usize::from(jobs)).saturating_sub(words.len()));
    words.resize(region.first as usize, 0);
    words.extend_from_slice(&own);
}

/// A disk or a part of one.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// Sectors of a block, which is the least that can be written.
    pub(crate) block: u32,
}

/// Writes table and seal of a disk (or a part of one), of which `covered` sectors were used (0: all that can be),
/// through `drive`, with [`BYTES`] of memory that nobody uses now.
///
/// Whole blocks are written, so the first write may begin before the table. Zeros are right there: a job's data ends at a
/// whole block of its own, so what is left of that block is between data and table.
pub(crate) fn write_table<D: Drive<Scattered>>(
    drive: &mut D,
    memory: Piece,
    words: &[u32],
    extent: Extent,
    covered: u64,
) -> Result<(), String> {
    let layout = Layout::new(extent.sectors, covered).map_err(|e| e.to_string())?;
    let block = u64::from(extent.block.max(1));
    if block > STRIDE || !extent.sectors.is_multiple_of(block) {
        return Err(format!("verify works on whole blocks of at most 32 KiB, the disk has blocks of {block} sectors"));
    }
    let mut places = Places::new(memory, BYTES);
    let stride = (STRIDE / block * block) as usize;
    for first in (layout.table / block * block..extent.sectors).step_by(stride) {
        let sectors = (stride as u64).min(extent.sectors - first) as u32;
        encode(&layout, words, first, places.data(0, sectors * SECTOR), Seal::Missing)?;
        write_place(drive, &places, first, sectors)?;
    }
    flush(drive)?;
    let last = extent.sectors - block;
    encode(&layout, words, last, places.data(0, extent.block.max(1) * SECTOR), Seal::There)?;
    write_place(drive, &places, last, extent.block.max(1))?;
    flush(drive)
}

/// Whether the last sector holds the seal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seal {
    Missing,
    There,
}

/// What the sectors from `first` on hold: zeros before the table, the table, the seal.
fn encode(layout: &Layout, words: &[u32], first: u64, data: &mut [u8], seal: Seal) -> Result<(), String> {
    for (sector, lba) in data.chunks_exact_mut(SECTOR as usize).zip(first..) {
        sector.fill(0);
        if lba == layout.seal() {
            if seal == Seal::There {
                layout.encode_seal(words, sector).map_err(|e| e.to_string())?;
            }
        } else if lba >= layout.table {
            layout.encode_table(words, lba - layout.table, sector).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn write_place<D: Drive<Scattered>>(drive: &mut D, places: &Places, lba: u64, sectors: u32) -> Result<(), String> {
    let buffer = places.scattered(0, sectors * SECTOR, &[]);
    let outcome = drive.submit(&[Work { op: Op::Write, lba, sectors, token: 0, buffer, zeroing: false }]);
    let place = format!("the verification table, at sectors {lba} to {},", lba + u64::from(sectors) - 1);
    match outcome.refused {
        Some((_, why)) => return Err(format!("{place} was refused: {why}")),
        None if outcome.taken == 0 => return Err(format!("{place} found no room")),
        None => (),
    }
    let mut written = None;
    while written.is_none() {
        drive.reap(1, |_, ended| written = Some(ended));
    }
    written.unwrap_or(Ok(())).map_err(|why| format!("{place} was not written: {why}"))
}

fn flush<D: Drive<Scattered>>(drive: &mut D) -> Result<(), String> {
    drive.flush().map_err(|why| format!("the flush of the verification table failed: {why}"))
}
