//! The sets of slots: a member is one thread's, and its record comes with it.
use super::explore;
use crate::slot::{Bitmap, Record, slots_of};
use crate::sync::Word;
use loom::thread;
use std::sync::Arc;

struct Slots {
    free: [Word; 1],
    staged: [Word; 1],
    records: [Record<u32>; 2],
}

impl Slots {
    fn new(free: u64) -> Arc<Self> {
        Arc::new(Self { free: [Word::new(free)], staged: [Word::new(0)], records: [Record::new(), Record::new()] })
    }

    fn free(&self) -> Bitmap<'_> {
        Bitmap::new(&self.free)
    }

    fn staged(&self) -> Bitmap<'_> {
        Bitmap::new(&self.staged)
    }

    /// Uses a slot that the caller took out of a set.
    fn touch(&self, slot: u16) -> u64 {
        // SAFETY: the taker's alone; loom fails the model if the set does not order its takers.
        unsafe {
            self.records[usize::from(slot)].content.with(|content| {
                content.token += 1;
                content.token
            })
        }
    }

    /// Uses all slots of a word that the caller took; returns how many.
    fn touch_all(&self, bits: u64) -> u64 {
        for slot in slots_of(0, bits) {
            self.touch(slot);
        }
        u64::from(bits.count_ones())
    }
}

/// Claims up to `want` slots, uses and releases them; returns how many.
fn use_some(slots: &Slots, want: u32) -> u64 {
    let Some((w, bits)) = slots.free().take(want, &mut 0) else { return 0 };
    let count = slots.touch_all(bits);
    slots.free().put(w, bits);
    count
}

/// Fails without: the acquire in `take`, the release in `put`, the compare-exchange in `take`.
#[test]
fn a_slot_is_one_claimers_at_a_time_and_its_record_is_handed_on_in_order() {
    explore(2, || {
        let slots = Slots::new(0b11);
        let threads = [1, 2].map(|want| {
            let slots = slots.clone();
            thread::spawn(move || use_some(&slots, want))
        });
        let mut uses = use_some(&slots, 2);
        uses += threads.map(|thread| thread.join().unwrap()).iter().sum::<u64>();
        assert_eq!(slots.free().peek(0), 0b11, "every slot came back");
        assert_eq!(slots.touch(0) + slots.touch(1), uses + 2, "every use happened, none twice");
    });
}

/// Fails without: the acquire in `take_word`, the acquire in `take_of`, the release in `put`.
#[test]
fn a_staged_slot_goes_to_the_publisher_or_back_to_its_submitter_and_its_record_with_it() {
    explore(3, || {
        let slots = Slots::new(0);
        let [stager, publisher] = [slots.clone(), slots.clone()];
        let publisher = thread::spawn(move || publisher.touch_all(publisher.staged().take_word(0)));
        let stager = thread::spawn(move || {
            stager.touch(0);
            stager.staged().put(0, 0b01);
            stager.touch_all(stager.staged().take_of(0, 0b01))
        });
        let here = slots.touch_all(slots.staged().take_of(0, 0b11));
        let taken = here + publisher.join().unwrap() + stager.join().unwrap();
        assert_eq!(taken, 1);
    });
}
