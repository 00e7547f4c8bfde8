//! Completions that are not the plain ones, and news of the server: looked at word by word, away from the plain path.
use super::buffer::SharedBuffer;
use super::request::Completion;
use super::session::{Client, Fault, Standing};
use crate::lib_block::entry;

impl<B: SharedBuffer, const N: usize> Client<'_, B, N> {
    /// The end that `words` say, of a tag in flight; `None`: it cannot be, and the server is not believed any more.
    #[cold]
    #[inline(never)]
    pub(super) fn check(&mut self, words: [u64; 2]) -> Option<Completion<B>> {
        match self.judge(words) {
            Ok(said) => Some(self.release(said.tag, said.status, said.bytes, said.late)),
            Err(fault) => {
                self.fail(fault);
                None
            }
        }
    }

    fn judge(&self, words: [u64; 2]) -> Result<entry::Completion, Fault> {
        let said = entry::Completion::decode(&words).map_err(|_| Fault::Malformed)?;
        if u64::from(said.epoch) != self.epoch {
            return Err(Fault::WrongEpoch);
        }
        let number = usize::from(said.tag);
        let slot = self.slots.get(number).filter(|slot| !slot.is_free(number)).ok_or(Fault::UnknownTag)?;
        let asked = slot.asked();
        if said.bytes > asked || (said.status.is_ok() && said.bytes != asked) {
            return Err(Fault::WrongBytes);
        }
        Ok(said)
    }

    /// The server's index cannot be: no completions.
    #[cold]
    #[inline(never)]
    pub(super) fn jumped(&mut self) -> u32 {
        self.fail(Fault::IndexJump);
        0
    }

    /// The first fault stays.
    fn fail(&mut self, fault: Fault) {
        if !matches!(self.standing(), Standing::Broken(_)) {
            self.stand(Standing::Broken(fault));
        }
    }

    /// The server says something new, or does not serve: nothing is submitted before [`Client::resume`] acted upon it.
    /// Whether its completions are believed.
    #[cold]
    #[inline(never)]
    pub(super) fn notice(&mut self) -> bool {
        if self.standing() == Standing::Serving {
            self.stand(Standing::Detached);
        }
        self.believes()
    }
}
