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
        words.resize(region.first as usize, 0);
        words.append(&mut job.words);
    }
    let drive = &mut returned.first_mut().ok_or("no job ran")?.drive;
    let memory = ground.dma(BYTES).ok_or("no memory for the table")?;
    write_table(drive, memory, &words, disk.capacity(), params.size / u64::from(SECTOR))?;
    Ok(returned)
}

/// Writes table and seal of a disk (or a part of one) of `capacity` sectors, of which `covered` were used (0: all that
/// can be), through `drive`, with [`BYTES`] of memory that nobody uses now.
pub(crate) fn write_table<D: Drive<Scattered>>(
    drive: &mut D,
    memory: Piece,
    words: &[u32],
    capacity: u64,
    covered: u64,
) -> Result<(), String> {
    let layout = Layout::new(capacity, covered).map_err(|e| e.to_string())?;
    let mut places = Places::new(memory, BYTES);
    for index in (0..layout.table_sectors).step_by(STRIDE as usize) {
        let sectors = STRIDE.min(layout.table_sectors - index) as u32;
        let data = places.data(0, sectors * SECTOR);
        layout.encode_table(words, index, data).map_err(|e| e.to_string())?;
        write_place(drive, &places, layout.table + index, sectors)?;
    }
    flush(drive)?;
    layout.encode_seal(words, places.data(0, SECTOR)).map_err(|e| e.to_string())?;
    write_place(drive, &places, layout.seal(), 1)?;
    flush(drive)
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
