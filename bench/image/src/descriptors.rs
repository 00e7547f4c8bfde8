//! Segment and interrupt descriptor tables of a processor.
//!
//! Every vector runs on a stack of its own (IST), because the precompiled `core` uses the red zone: an interrupt that
//! pushed onto the interrupted stack would overwrite live locals. Interrupt gates keep interrupts off, so one stack per
//! kind is enough: device, wake-up and timer share the first, exceptions use the second, and the third belongs to NMI
//! and double fault, which can arrive on top of either.

use crate::cpu::{CpuId, MAX_CPUS};
use crate::vectors;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// One stack per kind of interruption: what the processor switches to, top first used.
#[derive(Clone, Copy)]
pub struct InterruptStacks {
    /// Device lines, wake-ups, timer.
    pub interrupt: u64,
    /// Exceptions.
    pub fault: u64,
    /// NMI and double fault.
    pub last_resort: u64,
}

const INTERRUPT_IST: u16 = 0;
const FAULT_IST: u16 = 1;
const LAST_RESORT_IST: u16 = 2;
const FIRST_EXTERNAL: u8 = 32;
const NMI: u8 = 2;
const DOUBLE_FAULT: u8 = 8;

static TASK_STATES: [Once<TaskStateSegment>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
static SEGMENTS: [Once<Segments>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
static INTERRUPTS: Once<Gates> = Once::new();

struct Segments {
    table: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    task: SegmentSelector,
}

/// Loads the calling processor's tables. Afterwards an exception is reported instead of resetting the machine.
pub fn install(cpu: CpuId, stacks: InterruptStacks) {
    let task = TASK_STATES[cpu.index()].call_once(|| task_state(stacks));
    let segments = SEGMENTS[cpu.index()].call_once(|| Segments::new(task));
    segments.table.load();
    // SAFETY: the selectors name flat ring-0 segments and the task state of this very table, which lives in a static.
    unsafe {
        CS::set_reg(segments.code);
        SS::set_reg(segments.data);
        DS::set_reg(segments.data);
        ES::set_reg(segments.data);
        load_tss(segments.task);
    }
    INTERRUPTS.call_once(|| Gates::new(segments.code)).load();
}

fn task_state(stacks: InterruptStacks) -> TaskStateSegment {
    let mut task = TaskStateSegment::new();
    task.interrupt_stack_table[INTERRUPT_IST as usize] = VirtAddr::new(stacks.interrupt);
    task.interrupt_stack_table[FAULT_IST as usize] = VirtAddr::new(stacks.fault);
    task.interrupt_stack_table[LAST_RESORT_IST as usize] = VirtAddr::new(stacks.last_resort);
    task
}

impl Segments {
    fn new(task: &'static TaskStateSegment) -> Self {
        let mut table = GlobalDescriptorTable::new();
        let code = table.append(Descriptor::kernel_code_segment());
        let data = table.append(Descriptor::kernel_data_segment());
        let task = table.append(Descriptor::tss_segment(task));
        Self { table, code, data, task }
    }
}

/// The interrupt descriptor table as the processor reads it: 256 gates of 16 bytes.
#[repr(C, align(16))]
struct Gates([[u64; 2]; 256]);

impl Gates {
    fn new(code: SegmentSelector) -> Self {
        let mut gates = [[0; 2]; 256];
        for (vector, gate) in (0..=u8::MAX).zip(&mut gates) {
            *gate = Self::gate(vectors::entry(vector), code, stack_of(vector));
        }
        Self(gates)
    }

    /// A present 64-bit interrupt gate (type 0xe, ring 0): interrupts stay off in the handler.
    fn gate(entry: u64, code: SegmentSelector, stack: u16) -> [u64; 2] {
        let low = entry & 0xffff;
        let middle = (entry >> 16) & 0xffff;
        let options = 0x8e00 | u64::from(stack + 1);
        [low | u64::from(code.0) << 16 | options << 32 | middle << 48, entry >> 32]
    }

    fn load(&'static self) {
        let pointer = DescriptorTablePointer { limit: (size_of::<Self>() - 1) as u16, base: VirtAddr::from_ptr(self) };
        // SAFETY: the table is a static that is never written again, and every gate leads to an entry in `vectors`.
        unsafe { lidt(&pointer) };
    }
}

fn stack_of(vector: u8) -> u16 {
    match vector {
        NMI | DOUBLE_FAULT => LAST_RESORT_IST,
        0..FIRST_EXTERNAL => FAULT_IST,
        // A vector that nobody owns is reported as a fault, but it interrupts like a device.
        _ => INTERRUPT_IST,
    }
}
