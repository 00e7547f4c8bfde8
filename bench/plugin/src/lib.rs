//! A plugin for QEMU's translator: how often each block of guest code was executed, and how many instructions it has.
//!
//! QEMU tells of every block that it translates, and calls back whenever one begins. At QEMU's end the counts go to the
//! file that `-plugin FILE.so,out=PATH` names: a line for each block, `address instructions executions`, the address in
//! hexadecimal, and a last line `blocks N`, without which the file was cut short.
//!
//! A block is a straight line of code, so that executions times instructions is what was executed, but for blocks that a
//! fault or an exit to a device cuts short (counted whole). A repeated string instruction counts once for each round.
//! Guest addresses are virtual: programs that lie at the same place are not told apart.
//!
//! The functions declared here are QEMU's documented plugin interface, found in QEMU itself when it loads this library.
//! They are the same in all versions of the interface; only the number that it asks for differs: 1 up to QEMU 8, 2 for
//! those after it (`COUNT_PLUGIN_API` at build time). Knows nothing of what the addresses mean.
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The version of the interface that this was built for.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: c_int = match option_env!("COUNT_PLUGIN_API") {
    Some(text) => (text.as_bytes()[0] - b'0') as c_int,
    None => 1,
};

/// A block of guest code while it is translated; QEMU's.
#[repr(C)]
pub struct Translation {
    _opaque: [u8; 0],
}

type Translated = extern "C" fn(u64, *mut Translation);
type Executed = extern "C" fn(c_uint, *mut c_void);
type Ended = extern "C" fn(u64, *mut c_void);

/// The callback looks at no guest register.
const NO_REGISTERS: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: Translated);
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        block: *mut Translation,
        callback: Executed,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_atexit_cb(id: u64, callback: Ended, data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const Translation) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const Translation) -> u64;
}

/// Executions of a block, by its address and number of instructions. A block stays for as long as QEMU runs: translated
/// code points to it.
static BLOCKS: Mutex<BTreeMap<(u64, u64), &'static AtomicU64>> = Mutex::new(BTreeMap::new());
static OUT: OnceLock<PathBuf> = OnceLock::new();

/// Called by QEMU when it loads the plugin; not 0 refuses to be loaded.
///
/// # Safety
/// `arguments` are `count` texts that end in a zero, as QEMU hands them over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let mut texts = (0..usize::try_from(count).unwrap_or(0)).map(|index| {
        // SAFETY: there are `count` of them, each a text that ends in a zero and stays during this call.
        unsafe { CStr::from_ptr(*arguments.add(index)) }.to_bytes()
    });
    let Some(path) = texts.find_map(|text| text.strip_prefix(b"out=")) else {
        complain("the plugin needs out=PATH");
        return 1;
    };
    // Loaded twice, the first one's file stands.
    let _ = OUT.set(Path::new(OsStr::from_bytes(path)).to_owned());
    // SAFETY: `id` is ours, and both functions live for as long as the library, which QEMU never unloads before its end.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, ended, std::ptr::null_mut());
    }
    0
}

/// Prints a line on standard error; nobody may read it.
fn complain(text: &str) {
    let _nobody_reads_it = writeln!(std::io::stderr(), "{text}");
}

extern "C" fn translated(_id: u64, block: *mut Translation) {
    // SAFETY: `block` is valid during this callback.
    let (address, instructions) = unsafe { (qemu_plugin_tb_vaddr(block), qemu_plugin_tb_n_insns(block)) };
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    let executions: &'static AtomicU64 =
        blocks.entry((address, instructions as u64)).or_insert_with(|| Box::leak(Box::new(AtomicU64::new(0))));
    let data = std::ptr::from_ref(executions).cast_mut().cast();
    // SAFETY: `block` is valid during this callback; `data` points to a counter that is never freed, and `executed` only
    // shares it.
    unsafe { qemu_plugin_register_vcpu_tb_exec_cb(block, executed, NO_REGISTERS, data) }
}

extern "C" fn executed(_vcpu: c_uint, data: *mut c_void) {
    // SAFETY: what `translated` handed over: a counter that is never freed and only used atomically.
    let executions: &AtomicU64 = unsafe { &*data.cast_const().cast() };
    executions.fetch_add(1, Relaxed);
}

extern "C" fn ended(_id: u64, _data: *mut c_void) {
    if let Some(path) = OUT.get()
        && let Err(error) = write(path)
    {
        complain(&format!("{}: {error}", path.display()));
    }
}

fn write(path: &Path) -> std::io::Result<()> {
    let blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = BufWriter::new(File::create(path)?);
    for ((address, instructions), executions) in blocks.iter() {
        writeln!(out, "{address:x} {instructions} {}", executions.load(Relaxed))?;
    }
    writeln!(out, "blocks {}", blocks.len())?;
    out.flush()
}
