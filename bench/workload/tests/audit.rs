//! A whole run against a disk in memory, completions out of order; then the disk is damaged and must be found out.
use proptest::prelude::*;
use workload::params::Params;
use workload::pattern::{Io, Op, Pattern, Step};
use workload::random::Random;
use workload::verify::ledger::{Ledger, Outcome};
use workload::verify::table::{self, Audit, AuditError, Layout, audit};
use workload::verify::{Fault, Mismatch, fill};

const CAPACITY: u64 = 700;

struct Disk(Vec<[u8; 512]>);

impl Disk {
    fn part(&mut self, lba: u64, bytes: usize) -> &mut [u8] {
        &mut self.0.as_flattened_mut()[lba as usize * 512..][..bytes]
    }

    /// What is found is the same whether it is known where zeros are or not; they are not read where it is.
    fn audit(&self) -> (Result<Audit, AuditError<&'static str>>, Vec<Fault>) {
        let read_all = self.audit_with(&mut |_| 0);
        let zeros =
            |lba: u64| self.0.iter().skip(lba as usize).take_while(|sector| **sector == [0; 512]).count() as u64;
        assert_eq!(self.audit_with(&mut |lba| zeros(lba)), read_all);
        read_all
    }

    fn audit_with(&self, zeros: &mut dyn FnMut(u64) -> u64) -> (Result<Audit, AuditError<&'static str>>, Vec<Fault>) {
        let mut faults = Vec::new();
        let mut read = |lba: u64, data: &mut [u8]| {
            assert!(data.len() <= 16_384);
            let from = self.0.as_flattened().get(lba as usize * 512..).ok_or("beyond the end")?;
            data.copy_from_slice(from.get(..data.len()).ok_or("beyond the end")?);
            Ok(())
        };
        let mut disk = table::Disk { read: &mut read, zeros };
        let found = audit(self.0.len() as u64, &mut disk, &mut |fault| {
            faults.push(fault);
        });
        (found, faults)
    }
}

/// One I/O in flight and what it will write.
type Flight = (Io, Vec<u8>);

fn complete((io, data): Flight, disk: &mut Disk, ledger: &mut Ledger<'_>, dice: &mut Random) {
    let part = disk.part(io.lba, data.len());
    let outcome = match io.op {
        Op::Read => {
            ledger.check(&io, part).unwrap();
            Outcome::Done
        }
        Op::Write if dice.below(16) == 0 => {
            part[..data.len() / 2].copy_from_slice(&data[..data.len() / 2]);
            Outcome::Failed
        }
        Op::Write => {
            part.copy_from_slice(&data);
            Outcome::Done
        }
        Op::Trim if dice.below(2) == 0 => {
            part.fill(0);
            Outcome::Zeroed
        }
        Op::Trim => {
            part.fill(0xda);
            Outcome::Done
        }
    };
    ledger.finish(&io, outcome).unwrap();
}

/// Runs one job with up to `depth` I/Os in flight, which complete at random.
fn run(mut pattern: Pattern, depth: usize, disk: &mut Disk, ledger: &mut Ledger<'_>) {
    let mut dice = Random::new(depth as u64);
    let mut flying: Vec<Flight> = Vec::new();
    loop {
        let step = if flying.len() == depth { Step::Wait } else { pattern.next_free(|io| ledger.begin(io).is_ok()) };
        match step {
            Step::Io(io) => {
                let mut data = vec![0; io.bytes as usize];
                ledger.fill(&io, &mut data);
                flying.push((io, data));
            }
            Step::End if flying.is_empty() => break,
            Step::Wait | Step::End => {
                let chosen = dice.below(flying.len() as u64) as usize;
                complete(flying.swap_remove(chosen), disk, ledger, &mut dice);
            }
        }
    }
}

/// A disk after a run of all jobs, sealed, and the table in memory.
fn sealed(text: &str, depth: usize) -> (Disk, Layout, Vec<u32>) {
    let params = Params::parse(&format!("verify=crc32c number_ios=900 {text}")).unwrap();
    let layout = Layout::new(CAPACITY, params.size / 512).unwrap();
    let mut disk = Disk(vec![[0; 512]; CAPACITY as usize]);
    let mut words = vec![0; layout.covered as usize];
    for job in 0..params.numjobs {
        let pattern = Pattern::new(&params, job, CAPACITY).unwrap();
        let region = pattern.region();
        let words = &mut words[region.first as usize..][..region.sectors as usize];
        run(pattern, depth, &mut disk, &mut Ledger::new(words, region.first));
    }
    for index in 0..layout.table_sectors {
        layout.encode_table(&words, index, disk.part(layout.table + index, 512)).unwrap();
    }
    layout.encode_seal(&words, disk.part(layout.seal(), 512)).unwrap();
    (disk, layout, words)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_faultless_run_leaves_a_faultless_disk(
        rw in prop::sample::select(&["write", "randwrite", "rw", "randrw", "trim", "randtrim", "read"]),
        split in prop::sample::select(&["512", "4k", "512/50:4k/40:16k/10", "3k:512"]),
        jobs in 1u16..=3,
        depth in 1usize..=64,
        size in prop::sample::select(&["0", "128k", "192k"]),
    ) {
        let (disk, layout, _) = sealed(&format!("rw={rw} bssplit={split} numjobs={jobs} size={size}"), depth);
        let (found, faults) = disk.audit();
        let found = found.unwrap();
        prop_assert_eq!((found.faults, faults), (0, vec![]));
        prop_assert_eq!(found.written + found.zeros + found.unknown, layout.table);
        prop_assert_eq!(found.written > 0, rw.contains('w'));
        prop_assert!(found.zeros >= layout.table - layout.covered);
    }
}

fn written() -> (Disk, Layout, Vec<u32>) {
    // Every sector is written many times; one write in sixteen fails.
    sealed("rw=randwrite bssplit=512/50:4k/50 size=128k", 32)
}

fn faults_of(disk: &Disk) -> Vec<Fault> {
    let (found, faults) = disk.audit();
    assert_eq!(found.unwrap().faults, faults.len() as u64);
    faults
}

/// A sector whose content the table knows.
fn known(words: &[u32]) -> (usize, u32) {
    words.iter().copied().enumerate().find(|(_, word)| (2..0x7fff_ffff).contains(word)).unwrap()
}

#[test]
fn a_lost_write_is_found_though_the_older_one_is_sound() {
    let (mut disk, _, words) = written();
    let (lba, word) = known(&words);
    fill(&mut disk.0[lba], lba as u64, u64::from(word) - 1);
    let mismatch = Mismatch::Generation { found: u64::from(word) - 1, expected: u64::from(word) };
    assert_eq!(faults_of(&disk), [Fault { lba: lba as u64, mismatch }]);
}

#[test]
fn a_misplaced_write_is_found_where_it_landed() {
    let (mut disk, layout, words) = written();
    let (lba, _) = known(&words);
    let stray = layout.covered as usize + 3;
    disk.0[stray] = disk.0[lba];
    let faults = faults_of(&disk);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].lba, stray as u64);
    assert!(matches!(faults[0].mismatch, Mismatch::NotZero { .. }));
}

#[test]
fn damage_anywhere_in_what_is_known_is_found() {
    let (mut disk, layout, words) = written();
    for lba in 0..layout.table {
        let byte = (lba * 7 % 512) as usize;
        disk.0[lba as usize][byte] ^= 0x10;
        let unknown = words.get(lba as usize) == Some(&0x7fff_ffff);
        let faults: Vec<_> = faults_of(&disk).iter().map(|fault| fault.lba).collect();
        assert_eq!(faults, if unknown { vec![] } else { vec![lba] });
        disk.0[lba as usize][byte] ^= 0x10;
    }
}

#[test]
fn damage_to_table_or_seal_is_no_silence() {
    let (mut disk, layout, _) = written();
    for lba in layout.table..CAPACITY {
        for byte in 0..512 {
            disk.0[lba as usize][byte] ^= 0x80;
            let expected = if lba == layout.seal() { AuditError::NoSeal } else { AuditError::Table };
            assert_eq!(disk.audit().0, Err(expected), "sector {lba}, byte {byte}");
            disk.0[lba as usize][byte] ^= 0x80;
        }
    }
}

#[test]
fn a_run_that_did_not_end_has_no_seal() {
    assert_eq!(Disk(vec![[0; 512]; 100]).audit().0, Err(AuditError::NoSeal));
    assert_eq!(Disk(vec![]).audit().0, Err(AuditError::NoSeal));
    let (mut disk, layout, _) = written();
    disk.0[layout.seal() as usize] = [0; 512];
    assert_eq!(disk.audit().0, Err(AuditError::NoSeal));
}

#[test]
fn a_seal_of_another_disk_is_refused() {
    let (mut disk, layout, _) = written();
    let seal = disk.0[layout.seal() as usize];
    disk.0.push(seal);
    assert_eq!(disk.audit().0, Err(AuditError::OtherDisk { capacity: CAPACITY }));
}

#[test]
fn a_stale_table_is_refused_though_its_seal_is_new() {
    let (mut disk, layout, mut words) = written();
    words[0] += 1;
    layout.encode_seal(&words, disk.part(layout.seal(), 512)).unwrap();
    assert_eq!(disk.audit().0, Err(AuditError::Table));
}

#[test]
fn an_entry_that_is_no_generation_is_refused_whatever_the_crc() {
    let (mut disk, layout, _) = written();
    let table = disk.part(layout.table, layout.table_sectors as usize * 512);
    table[7] = 0x80;
    let crc = workload::verify::crc32c(table).to_le_bytes();
    let seal = disk.part(layout.seal(), 512);
    seal[32..36].copy_from_slice(&crc);
    let crc = workload::verify::crc32c(&seal[..508]).to_le_bytes();
    seal[508..].copy_from_slice(&crc);
    assert_eq!(disk.audit().0, Err(AuditError::Table));
}

#[test]
fn a_failing_read_is_passed_on() {
    let mut reads = 0;
    for limit in 0..3 {
        let (disk, ..) = written();
        let mut read = |lba: u64, data: &mut [u8]| {
            reads += 1;
            if reads > limit {
                return Err("broken cable");
            }
            data.copy_from_slice(&disk.0.as_flattened()[lba as usize * 512..][..data.len()]);
            Ok(())
        };
        let mut disk = table::Disk { read: &mut read, zeros: &mut |_| 0 };
        assert_eq!(audit(CAPACITY, &mut disk, &mut |_| ()), Err(AuditError::Read("broken cable")));
        reads = 0;
    }
}
