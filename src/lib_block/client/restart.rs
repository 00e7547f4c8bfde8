//! A new server, or none any more: what is lost, what is asked again, and in which order.
//!
//! The server's announcement is believed even by a client that believes nothing else of it: it is made by its next
//! life, after the device was reset.
use super::buffer::SharedBuffer;
use super::request::Completion;
use super::session::{Client, Replay, Resumed, Standing};
use crate::lib_block::Status;
use crate::lib_block::entry::Operation;
use crate::lib_block::ring::{Announcement, Stage};

impl<B: SharedBuffer, const N: usize> Client<'_, B, N> {
    /// Acts upon what the server says of itself: attaches to a new one, ends what is over. Completions that are left
    /// of the server before go to `sink` first; then, in the order of their submission, the requests that are lost
    /// with [`Status::Reset`], or with [`Status::Gone`] where no server comes after. With [`Replay::Unanswered`] the
    /// others are asked again and shown to the new server. A buffer is handed out only after the announcement.
    ///
    /// A `sink` that panics has had the completion that it was given. Nothing is submitted until another call of this
    /// has done the rest.
    pub fn resume(&mut self, policy: Replay, mut sink: impl FnMut(Completion<B>)) -> Resumed {
        let word = self.end.announcement();
        if !self.has_news(word) {
            return Resumed::Unchanged;
        }
        if self.notice() {
            self.take(u32::MAX, &mut sink);
        }
        let resumed = match word.stage {
            Stage::Absent => Resumed::Absent,
            Stage::Serving if u64::from(word.epoch) == self.epoch && !matches!(self.standing(), Standing::Over(_)) => {
                self.carry_on();
                Resumed::Unchanged
            }
            Stage::Serving => self.attach(word, policy, &mut sink),
            Stage::Stopped | Stage::Ended => {
                self.finish(word.stage, &mut sink);
                Resumed::Over(word.stage)
            }
        };
        self.known = word;
        resumed
    }

    /// Takes everything that is unanswered away from the server; it ends with [`Status::Gone`], and so does the
    /// session.
    ///
    /// # Safety
    /// Neither the server nor its device touches the memory of this session's requests any more: the call that closes
    /// the session was answered, or the device was reset.
    pub unsafe fn abandon(&mut self, mut sink: impl FnMut(Completion<B>)) {
        self.finish(Stage::Ended, &mut sink);
    }

    /// The same life went on.
    fn carry_on(&mut self) {
        if self.standing() == Standing::Detached {
            self.stand(Standing::Serving);
        }
    }

    fn finish(&mut self, stage: Stage, sink: &mut impl FnMut(Completion<B>)) {
        self.stand(Standing::Over(stage));
        let (order, count) = self.by_submission();
        for &number in order.iter().take(count) {
            sink(self.release(number, Status::Gone, 0, false));
        }
    }

    fn attach(&mut self, word: Announcement, policy: Replay, sink: &mut impl FnMut(Completion<B>)) -> Resumed {
        let (mut order, count) = self.by_submission();
        let order = &mut order[..count];
        // First everything that runs the caller's code (`sink`, a buffer's `data`), then everything that the server sees.
        // If that code panics, the next call finds what is left as it was, and stages it anew further on.
        let mut replayed = 0;
        let withdrawn = self.withdrawn();
        for at in 0..count {
            let number = order[at];
            if policy == Replay::Unanswered && !withdrawn[usize::from(number)] {
                order[replayed] = number;
                replayed += 1;
            } else {
                sink(self.release(number, Status::Reset, 0, false));
            }
        }
        for &number in &order[..replayed] {
            self.stage_again(number);
        }
        self.end.acknowledge_with(word.epoch, replayed as u32);
        self.epoch = word.epoch.into();
        self.stand(Standing::Serving);
        // The doorbell is rung for the acknowledgement anyway.
        let _ = self.end.publish();
        Resumed::Attached { lost: (count - replayed) as u32, replayed: replayed as u32 }
    }

    /// Tags that are unanswered, in the order in which they were submitted, and how many they are.
    fn by_submission(&self) -> ([u16; N], usize) {
        let mut order = [0; N];
        let mut count = 0;
        for (number, _) in self.slots.iter().enumerate().filter(|(number, slot)| !slot.is_free(*number)) {
            order[count] = number as u16;
            count += 1;
        }
        order[..count].sort_unstable_by_key(|&number| self.slots[usize::from(number)].sequence);
        (order, count)
    }

    /// Which tags are cancels, or requests that one of them withdraws.
    fn withdrawn(&self) -> [bool; N] {
        let mut withdrawn = [false; N];
        for (number, slot) in self.slots.iter().enumerate() {
            if slot.is_free(number) || slot.operation != Operation::Cancel {
                continue;
            }
            withdrawn[number] = true;
            // `cancel` put a tag of this client there. One that was given away again since is another request's.
            let target = slot.lba as usize;
            if let (Some(withdrawn), Some(other)) = (withdrawn.get_mut(target), self.slots.get(target)) {
                *withdrawn |= !other.is_free(target) && other.sequence < slot.sequence;
            }
        }
        withdrawn
    }
}
