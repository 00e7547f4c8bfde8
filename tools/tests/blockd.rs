//! Jobs over blockd, with a script in QEMU's place: what the machine is built of, and what the disk is held to afterwards.
mod tool;

use gpt::{GptConfig, partition_types};
use std::path::{Path, PathBuf};
use tool::{BOOT, Ran, Stub, done, finish};

/// A disk of 8 MiB with two partitions, from sector 2048 and from sector 6144 on.
fn disk(folder: &Path) -> PathBuf {
    let path = folder.join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    gpt::mbr::ProtectiveMBR::new()
        .overwrite_lba0(&mut std::fs::File::options().write(true).read(true).open(&path).unwrap())
        .unwrap();
    let mut disk = GptConfig::new().writable(true).create(&path).unwrap();
    for (id, first) in [(1, 2048), (2, 6144)] {
        disk.add_partition_at(&format!("part{id}"), id, first, 4096, partition_types::LINUX_FS, 0).unwrap();
    }
    disk.write().unwrap();
    path
}

/// A guest that keeps its arguments, writes a byte into `sector` of the disk, and reports that all went well.
fn writing(sector: u64, options: &[&str]) -> (Ran, String) {
    let folder = tempfile::tempdir().unwrap();
    let (path, arguments) = (disk(folder.path()), folder.path().join("arguments"));
    let stub = Stub::new(&format!(
        "echo \"$*\" > {}\nprintf x | dd of={} bs=512 seek={sector} conv=notrunc 2>/dev/null\necho '{BOOT}'; echo '{}'\nexit 33",
        arguments.display(),
        path.display(),
        done(0)
    ));
    let path = format!("--disk={}", path.display());
    let mut all = vec!["--via=blockd", "--number_ios=1000", "--partitions=on", &path];
    all.extend(options);
    let ran = finish(stub.bench(&all));
    (ran, std::fs::read_to_string(arguments).unwrap_or_default())
}

#[test]
fn clients_and_front_ends_have_vcpus_and_the_image_is_told_of_both() {
    let (ran, arguments) = writing(2048, &["--clients=2"]);
    assert!(ran.ok, "{}", ran.error);
    assert!(ran.output.contains("bench via blockd, 2 clients "), "{}", ran.output);
    for part in ["-smp 3,", "num-queues=1,", "via=blockd clients=2 front=own partitions=on"] {
        assert!(arguments.contains(part), "{part} in {arguments}");
    }
}

#[test]
fn a_run_that_writes_outside_of_its_clients_partitions_is_an_error() {
    for (sector, clients) in [(0, 2), (1, 2), (2, 2), (2047, 2), (6144, 1), (10_240, 2), (16_383, 2)] {
        let (ran, _) = writing(sector, &[&format!("--clients={clients}")]);
        assert!(!ran.ok, "sector {sector}: {}", ran.output);
        assert_eq!(ran.output, "", "something was presented as a result");
        assert!(ran.error.contains("outside of its clients' partitions"), "sector {sector}: {}", ran.error);
    }
    let (ran, _) = writing(10_239, &["--clients=2"]);
    assert!(ran.ok, "{}", ran.error);
}
