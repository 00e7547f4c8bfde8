//! Every option of fio 3.33, and its place here: done, noted, or refused.
//!
//! Done is what this bench does as fio does it. Noted is what has no meaning here: it is accepted, and said once. What
//! would change the measurement, or what is measured, is refused by name. docs/fio-keys.md is this table, written out; a
//! test holds the two together, and another one holds the table against `fio --cmdhelp=all`. Knows words; what the done
//! ones come to is [`super::meaning`]'s.
use Place::{Done, Noted, Only, Refused};

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// As in fio, apart from what is said.
    Done(&'static str),
    /// Accepted without effect; the text follows the key in a note.
    Noted(&'static str),
    /// These values ask for nothing and are accepted; others are refused, and why.
    Only(&'static [&'static str], &'static str),
    /// Refused, and why.
    Refused(&'static str),
}

/// One of fio's keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// fio's other names for it.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) place: Place,
    /// Stands without a value, too: `time_based`.
    pub(crate) is_flag: bool,
}

const fn key(name: &'static str, place: Place) -> Key {
    Key { name, aliases: &[], place, is_flag: false }
}

const fn also(name: &'static str, aliases: &'static [&'static str], place: Place) -> Key {
    Key { name, aliases, place, is_flag: false }
}

const fn flag(name: &'static str, place: Place) -> Key {
    Key { name, aliases: &[], place, is_flag: true }
}

/// The key that `name` is, if it is one of fio's.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name || key.aliases.contains(&name))
}

const OFF: &[&str] = &["0"];
const CONTENTS: &str = "has no meaning where nobody looks at the data: buffers hold anything unless verify is given";
const CACHE: &str = "has no meaning without a page cache";
const FILES: &str = "has no meaning where no files are made: the disk is --disk=FILE, whole";
const LOGS: &str = "is not written: the results keep percentiles and samples";
const CLOCK: &str = "has no meaning here: the clock is read twice per batch, and latencies are always kept";
const PINNED: &str = "has no meaning here: the tool chooses the processors, and the results name them";
const HOST: &str = "has no meaning here: it is about the process that fio is";
const FLUSHES: &str = "a flush between or after writes is not timed here";
const WHEN: &str =
    "has no meaning here: reads are checked as they come, and the host reads all written blocks after the run";
const FORMAT: &str = "verified blocks have one format here (verify=crc32c)";
const TRACE: &str = "has no meaning without read_iolog";
const ZONES: &str = "there are no zones here";
const THINK: &str = "jobs do not pause here";
const OTHER: &str = "how a job adapts to latencies or other jobs is not done here";
const WATCH: &str = "has no meaning without latency_target";

/// All of them, in the order of `fio --cmdhelp=all`, and common ones of fio's engines for disks.
pub(crate) const KEYS: &[Key] = &[
    key("description", Done("read, and nothing else")),
    key("name", Done("the job's name; characters other than A-Z a-z 0-9 . _ - become _")),
    key("wait_for", Noted("has no meaning here: sections run one after another")),
    key(
        "filename",
        Done("must be this run's disk (`--disk=FILE`): another file is refused, and so is any while the disk is null"),
    ),
    key("lockfile", Noted(FILES)),
    key("directory", Done("only looked at beside filename; noted without: no files are made, the disk is --disk=FILE")),
    key("filename_format", Noted(FILES)),
    key("unique_filename", Noted(FILES)),
    key("opendir", Refused("the disk is one file: leave it out, and give --disk=FILE")),
    also(
        "rw",
        &["readwrite"],
        Done(
            "read, write, randread, randwrite, rw, readwrite, randrw, trim, randtrim; refused: trimwrite, and a \
             modifier such as `:8`. Without `rw` it is randread here and read in fio, which is noted for job files",
        ),
    ),
    also(
        "bs",
        &["blocksize"],
        Done("multiples of 512; of `bs=4k,8k`, what `rw` needs; refused where a mix would need two"),
    ),
    also("ba", &["blockalign"], Done("only the (smallest) block size, which it is anyway")),
    also("bsrange", &["blocksize_range"], Done("up to 8 sizes, each with the same share, as in fio")),
    key("bssplit", Done("up to 8 sizes; of two splits, what `rw` needs; refused where a mix would need both")),
    Key {
        name: "bs_unaligned",
        aliases: &["blocksize_unaligned"],
        place: Only(OFF, "every request begins and ends at a multiple of 512 bytes"),
        is_flag: true,
    },
    key("bs_is_seq_rand", Only(OFF, "a job is sequential or random here")),
    key(
        "randrepeat",
        Done("1: the same positions in every run (of `randseed`); 0: others, whose seed the results name"),
    ),
    key("randseed", Done("the seed; the positions are not those that fio draws from it")),
    flag(
        "norandommap",
        Done(
            "positions may repeat; without it each block comes once in a pass, as in fio, but where there are several \
             block sizes, where they may repeat",
        ),
    ),
    key("softrandommap", Noted("has no meaning here: no map is kept that memory could be too short for")),
    key("ignore_error", Refused("a request that ends in an error makes the run fail here")),
    key("rw_sequencer", Noted("has no meaning without a modifier of rw")),
    key(
        "ioengine",
        Done(
            "noted: the driver does the work of libaio, io_uring, psync and fio's other engines for disks. An engine \
             that does something else (cpuio, net, ftruncate, rados) is refused",
        ),
    ),
    key("iodepth", Done("requests in flight per job, whatever fio's engine would make of it")),
    also(
        "iodepth_batch",
        &["iodepth_batch_submit"],
        Done("requests handed over at once; 0 is iodepth (128 at most); refused above iodepth"),
    ),
    also("iodepth_batch_complete_min", &["iodepth_batch_complete"], Done("completions to wait for at least")),
    key("iodepth_batch_complete_max", Done("completions to take at most in one go [default here: 64]")),
    key("iodepth_low", Done("only the iodepth, which is fio's default")),
    key("serialize_overlap", Only(OFF, "requests of a job may overlap here unless verify is given")),
    key("io_submit_mode", Only(&["inline"], "jobs submit by themselves here")),
    key(
        "size",
        Done(
            "of each job: bytes, or a percentage of the disk. It bounds what the job transfers. Without it: the whole \
             disk once, or on the null disk, which has no size, until `runtime` ends",
        ),
    ),
    also("io_size", &["io_limit"], Done("of each job: what it transfers, going round its part of the disk")),
    also("fill_device", &["fill_fs"], Only(OFF, "a disk has its size here: give size")),
    key("filesize", Refused("the disk is there and has its size: give size for the part of it that is used")),
    key("file_append", Only(OFF, "a disk has no end to append to: give offset")),
    also(
        "offset",
        &["fileoffset"],
        Done("a multiple of 512, or a percentage of the disk; refused with verify and via=blockd"),
    ),
    key("offset_increment", Done("likewise; with verify and via=blockd it must be size: jobs are kept apart there")),
    key("offset_align", Only(OFF, "offsets are taken as they are: give one that is aligned")),
    key("number_ios", Done("of each job; may stand beside runtime and size: whichever is first")),
    key("random_generator", Noted("has no meaning here: there is one generator")),
    key("random_distribution", Only(&["random"], "positions are spread evenly here")),
    key("percentage_random", Only(&["100"], "a job is sequential or random here")),
    key("percentage_sequential", Only(OFF, "a job is sequential or random here")),
    key("allrandrepeat", Done("as randrepeat")),
    also("nrfiles", &["nr_files"], Only(&["1"], "the disk is one file")),
    key("openfiles", Noted(FILES)),
    key("file_service_type", Noted(FILES)),
    key("fallocate", Noted(FILES)),
    key("fadvise_hint", Noted(CACHE)),
    key("fsync", Only(OFF, FLUSHES)),
    key("fdatasync", Only(OFF, FLUSHES)),
    key("write_barrier", Only(OFF, FLUSHES)),
    key("sync_file_range", Refused(FLUSHES)),
    key("direct", Noted(CACHE)),
    key("atomic", Only(OFF, "atomic writes are not done here")),
    key("buffered", Noted(CACHE)),
    key("overwrite", Noted(FILES)),
    key("loops", Done("passes over size, io_size and number_ios")),
    key("numjobs", Done("submitters; with via=blockd it is `clients` (refused)")),
    also("startdelay", &["start_delay"], Noted("has no meaning here: sections run one after another")),
    also(
        "runtime",
        &["timeout"],
        Done("ends a job early; seconds, also decimal ones (0.5), or with us, ms, s, m, h, d"),
    ),
    flag("time_based", Done("the job goes on until `runtime` ends, over size again and again")),
    flag("verify_only", Only(OFF, "what an earlier run wrote is not verified here")),
    key("ramp_time", Only(OFF, "everything that a job does is measured here")),
    key("clocksource", Noted(CLOCK)),
    also("mem", &["iomem"], Noted("has no meaning here: buffers are DMA memory")),
    also("iomem_align", &["mem_align"], Noted("has no meaning here: buffers are aligned to pages")),
    key(
        "verify",
        Done(
            "0, none, crc32c and crc32c-intel (the same). Reads of the run are checked, and the host reads what was \
             written after the run, which is not counted as reads",
        ),
    ),
    key("do_verify", Noted(WHEN)),
    key("verifysort", Noted(WHEN)),
    key("verifysort_nr", Noted(WHEN)),
    key("verify_interval", Refused(FORMAT)),
    key("verify_offset", Refused(FORMAT)),
    key("verify_pattern", Refused(FORMAT)),
    key("verify_fatal", Noted("has no meaning here: a block that is not as written makes the run fail")),
    key("verify_dump", Noted("has no meaning here: the first difference is shown")),
    key("verify_async", Noted(WHEN)),
    key("verify_async_cpus", Noted(WHEN)),
    key("verify_backlog", Noted(WHEN)),
    key("verify_backlog_batch", Noted(WHEN)),
    key("experimental_verify", Noted(WHEN)),
    key("verify_state_load", Only(OFF, "what an earlier run wrote is not verified here")),
    key("verify_state_save", Noted("has no meaning here: no state is kept for a later run")),
    key("trim_percentage", Only(OFF, "trims are jobs of their own here: rw=trim or rw=randtrim")),
    key("trim_verify_zero", Noted("has no meaning without trim_percentage")),
    key("trim_backlog", Noted("has no meaning without trim_percentage")),
    key("trim_backlog_batch", Noted("has no meaning without trim_percentage")),
    key("write_iolog", Noted(LOGS)),
    key("read_iolog", Refused("recorded I/Os are not played here")),
    key("read_iolog_chunked", Noted(TRACE)),
    key("replay_no_stall", Noted(TRACE)),
    key("replay_redirect", Noted(TRACE)),
    key("replay_scale", Noted(TRACE)),
    key("replay_align", Noted(TRACE)),
    key("replay_time_scale", Noted(TRACE)),
    key("replay_skip", Noted(TRACE)),
    key("merge_blktrace_file", Noted(TRACE)),
    key("merge_blktrace_scalars", Noted(TRACE)),
    key("merge_blktrace_iters", Noted(TRACE)),
    key("exec_prerun", Refused("no commands are run here: run it before")),
    key("exec_postrun", Refused("no commands are run here: run it afterwards")),
    key("ioscheduler", Noted("has no meaning here: there is no I/O scheduler between driver and device")),
    key("zonemode", Only(&["none"], ZONES)),
    key("zonesize", Only(OFF, ZONES)),
    key("zonecapacity", Only(OFF, ZONES)),
    key("zonerange", Only(OFF, ZONES)),
    key("zoneskip", Only(OFF, ZONES)),
    key("read_beyond_wp", Only(OFF, ZONES)),
    key("max_open_zones", Only(OFF, ZONES)),
    key("job_max_open_zones", Only(OFF, ZONES)),
    key("ignore_zone_limits", Only(OFF, ZONES)),
    key("zone_reset_threshold", Only(OFF, ZONES)),
    key("zone_reset_frequency", Only(OFF, ZONES)),
    key("lockmem", Noted(HOST)),
    key("rwmixread", Done("the share of reads in a mix")),
    key("rwmixwrite", Done("the share of writes; the last of the two holds")),
    key("rwmixcycle", Noted("has no meaning any more, in fio either")),
    key("nice", Noted(HOST)),
    key("prio", Noted("has no meaning here: requests have no priorities")),
    key("prioclass", Noted("has no meaning here: requests have no priorities")),
    key("thinktime", Only(OFF, THINK)),
    key("thinktime_spin", Only(OFF, THINK)),
    key("thinktime_blocks", Noted("has no meaning without thinktime")),
    key("thinktime_blocks_type", Noted("has no meaning without thinktime")),
    key("thinktime_iotime", Only(OFF, THINK)),
    key("rate", Only(OFF, "bytes per second are not bounded here: give rate_iops")),
    also("rate_min", &["ratemin"], Only(OFF, "a job that is too slow is not stopped here")),
    key("rate_iops", Done("of each job; of `rate_iops=100,200`, what `rw` needs; refused where a mix would need two")),
    key("rate_iops_min", Only(OFF, "a job that is too slow is not stopped here")),
    key("rate_process", Only(&["linear"], "requests under rate_iops come at equal distances here")),
    also("rate_cycle", &["ratecycle"], Noted("has no meaning without rate_min")),
    key("rate_ignore_thinktime", Noted("has no meaning without thinktime")),
    key("max_latency", Only(OFF, OTHER)),
    key("latency_target", Only(OFF, OTHER)),
    key("latency_window", Noted(WATCH)),
    key("latency_percentile", Noted(WATCH)),
    key("latency_run", Noted(WATCH)),
    key("invalidate", Noted(CACHE)),
    key("sync", Only(&["0", "none"], FLUSHES)),
    key("write_hint", Noted("has no meaning here: virtio-blk has no hints")),
    key("create_serialize", Noted(FILES)),
    key("create_fsync", Noted(FILES)),
    key("create_on_open", Noted(FILES)),
    key("create_only", Only(OFF, "no files are made here")),
    key("allow_file_create", Noted(FILES)),
    key("allow_mounted_write", Noted("has no meaning here: nobody looks whether the disk is mounted")),
    key("pre_read", Noted(CACHE)),
    key("cpumask", Noted(PINNED)),
    key("cpus_allowed", Noted(PINNED)),
    key("cpus_allowed_policy", Noted(PINNED)),
    key("numa_cpu_nodes", Noted(PINNED)),
    key("numa_mem_policy", Noted(PINNED)),
    key("gpu_dev_id", Refused("there is no GPU here")),
    key("end_fsync", Only(OFF, FLUSHES)),
    key("fsync_on_close", Only(OFF, FLUSHES)),
    key("unlink", Noted(FILES)),
    key("unlink_each_loop", Noted(FILES)),
    flag("exitall", Noted("has no meaning here: sections run one after another")),
    key("exit_what", Noted("has no meaning here: sections run one after another")),
    flag("exitall_on_error", Noted("is always so here: the first job that fails ends all")),
    Key {
        name: "stonewall",
        aliases: &["wait_for_previous"],
        place: Done("always so: sections run one after another. That those without it run together in fio is noted"),
        is_flag: true,
    },
    flag("new_group", Noted("has no meaning here: every section is reported by itself")),
    Key { name: "thread", aliases: &["threads"], place: Noted(HOST), is_flag: true },
    key("per_job_logs", Noted(LOGS)),
    flag("write_bw_log", Noted(LOGS)),
    key("bwavgtime", Noted(LOGS)),
    flag("write_lat_log", Noted(LOGS)),
    flag("write_iops_log", Noted(LOGS)),
    key("iopsavgtime", Noted(LOGS)),
    key("log_entries", Noted(LOGS)),
    key("log_avg_msec", Noted(LOGS)),
    key("log_hist_msec", Noted(LOGS)),
    key("log_hist_coarseness", Noted(LOGS)),
    flag("write_hist_log", Noted(LOGS)),
    key("log_max_value", Noted(LOGS)),
    key("log_offset", Noted(LOGS)),
    key("log_prio", Noted(LOGS)),
    key("log_compression", Noted(LOGS)),
    key("log_compression_cpus", Noted(LOGS)),
    key("log_store_compressed", Noted(LOGS)),
    key("log_unix_epoch", Noted(LOGS)),
    key("log_alternate_epoch", Noted(LOGS)),
    key("log_alternate_epoch_clock_id", Noted(LOGS)),
    key("block_error_percentiles", Noted("has no meaning here: a request that ends in an error makes the run fail")),
    flag("group_reporting", Noted("is always so here: the jobs of a section are reported together")),
    key("stats", Only(&["1"], "every job is reported here: leave the section out")),
    flag("zero_buffers", Noted(CONTENTS)),
    flag("refill_buffers", Noted(CONTENTS)),
    key("scramble_buffers", Noted(CONTENTS)),
    key("buffer_pattern", Noted(CONTENTS)),
    key("buffer_compress_percentage", Noted(CONTENTS)),
    key("buffer_compress_chunk", Noted(CONTENTS)),
    key("dedupe_percentage", Noted(CONTENTS)),
    key("dedupe_mode", Noted(CONTENTS)),
    key("dedupe_working_set_percentage", Noted(CONTENTS)),
    key("dedupe_global", Noted(CONTENTS)),
    key("clat_percentiles", Noted(CLOCK)),
    key("lat_percentiles", Noted(CLOCK)),
    key("slat_percentiles", Noted(CLOCK)),
    key("percentile_list", Noted("has no meaning here: the results hold fio's default percentiles")),
    key("significant_figures", Noted("has no meaning here: the table has its own")),
    key("disk_util", Noted("has no meaning here: the host's counters do not see the device")),
    key("gtod_reduce", Noted(CLOCK)),
    key("disable_lat", Noted(CLOCK)),
    key("disable_clat", Noted(CLOCK)),
    key("disable_slat", Noted(CLOCK)),
    also("disable_bw_measurement", &["disable_bw"], Noted(CLOCK)),
    key("gtod_cpu", Noted(CLOCK)),
    key("unified_rw_reporting", Noted("has no meaning here: the results keep reads, writes and trims apart")),
    key("continue_on_error", Only(&["0", "none"], "a request that ends in an error makes the run fail here")),
    key("error_dump", Noted("has no meaning here: a request that ends in an error makes the run fail")),
    key("profile", Refused("fio's built-in profiles are not here")),
    key("cgroup", Noted(HOST)),
    key("cgroup_nodelete", Noted(HOST)),
    key("cgroup_weight", Noted(HOST)),
    key("uid", Noted(HOST)),
    key("gid", Noted(HOST)),
    key("kb_base", Done("1024 (4k is 4096, 4KiB is 4000, as in fio) or 1000 (the other way round)")),
    key("unit_base", Noted("has no meaning here: the table has its own units")),
    key("hugepage-size", Noted("has no meaning here: buffers are DMA memory")),
    key("flow_id", Noted("has no meaning without flow")),
    key("flow", Only(OFF, OTHER)),
    key("flow_watermark", Noted("has no meaning without flow")),
    key("flow_sleep", Noted("has no meaning without flow")),
    also("steadystate", &["ss"], Refused("runs have the length that they are given: repeat them instead")),
    also("steadystate_duration", &["ss_dur"], Noted("has no meaning without steadystate")),
    also("steadystate_ramp_time", &["ss_ramp"], Noted("has no meaning without steadystate")),
    // Of fio's engines for disks.
    key("cmdprio", Refused("requests have no priorities here")),
    key("cmdprio_class", Refused("requests have no priorities here")),
    key("cmdprio_percentage", Refused("requests have no priorities here")),
    key("cmdprio_bssplit", Refused("requests have no priorities here")),
    key("cmd_type", Refused("NVMe commands are not sent here")),
    flag("hipri", Noted("is another option here: give mode=polled")),
    flag("userspace_reap", Noted("is always so here: the driver reads the ring")),
    flag("registerfiles", Noted("has no meaning here: there are no system calls")),
    flag("fixedbufs", Noted("has no meaning here: there are no system calls")),
    key("nonvectored", Noted("has no meaning here: there are no system calls")),
    flag("sqthread_poll", Noted("has no meaning here: there are no system calls")),
    key("sqthread_poll_cpu", Noted("has no meaning here: there are no system calls")),
    flag("uncached", Noted(CACHE)),
    key("nowait", Noted("has no meaning here: there are no system calls")),
];

/// fio's engines that read and write a disk or a file, all of which the driver stands for.
pub(crate) const ENGINES: &[&str] = &[
    "libaio",
    "io_uring",
    "io_uring_cmd",
    "sync",
    "psync",
    "vsync",
    "pvsync",
    "pvsync2",
    "posixaio",
    "solarisaio",
    "windowsaio",
    "mmap",
    "sg",
    "null",
    "libblkio",
];

/// Those of them that keep one request in flight whatever `iodepth` says.
pub(crate) const SYNCHRONOUS: &[&str] = &["sync", "psync", "vsync", "pvsync", "pvsync2", "mmap"];

#[cfg(test)]
mod tests;
