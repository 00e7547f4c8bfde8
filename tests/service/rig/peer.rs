//! A client by hand: entries and completions as they are, over its end of the rings.
use super::{ALL, Ground, PAGE, Tested, open};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{Completion, Data, Operation, Piece, Submission};
use drv_virtio_block::lib_block::message::{Opened, Opening};
use drv_virtio_block::lib_block::ring::{Announcement, ClientEnd, Stage};

/// See the module's text.
pub(crate) struct Peer<'m> {
    pub(crate) end: ClientEnd<'m>,
    pub(crate) opened: Opened,
    pub(crate) seat: usize,
}

impl<'m> Peer<'m> {
    /// A client of a session over rings `seat`, that goes along.
    #[track_caller]
    pub(crate) fn new(service: &mut Tested<'m>, ground: &'m Ground, seat: usize, opening: Opening) -> Self {
        let opened = open(service, ground, seat, opening);
        let mut peer = Self { end: ground.client_end(seat), opened, seat };
        peer.go_along();
        service.pass();
        peer
    }

    /// As the server asks.
    #[track_caller]
    pub(crate) fn go_along(&mut self) {
        let Announcement { epoch, stage } = self.end.announcement();
        assert_eq!(stage, Stage::Serving);
        self.end.acknowledge(epoch);
    }

    /// Shows the server these entries.
    pub(crate) fn submit(&mut self, entries: &[Submission]) {
        for entry in entries {
            self.end.stage(entry.encode());
        }
        // The service looks anyway.
        let _ = self.end.publish();
    }

    /// Takes what was answered, at most `most`.
    #[track_caller]
    pub(crate) fn reap_some(&mut self, most: u32) -> Vec<Completion> {
        let ready = self.end.look().expect("an index that can be").min(most);
        let taken = (0..ready).map(|at| Completion::decode(&self.end.peek(at)).expect("a completion")).collect();
        self.end.consume(ready);
        taken
    }

    /// Takes what was answered.
    #[track_caller]
    pub(crate) fn reap(&mut self) -> Vec<Completion> {
        self.reap_some(u32::MAX)
    }

    /// Tag and status of what was answered, by tag.
    #[track_caller]
    pub(crate) fn answers(&mut self) -> Vec<(u16, Status)> {
        let mut answers: Vec<_> = self.reap().into_iter().map(|answer| (answer.tag, answer.status)).collect();
        answers.sort_by_key(|(tag, _)| *tag);
        answers
    }
}

fn one(operation: Operation, tag: u16, lba: u64, page: usize) -> Submission {
    let data = Data::One(Piece { memory: ALL, offset: (page * PAGE) as u64, len: PAGE as u32 });
    Submission { tag, blocks: PAGE as u32 / 512, data, ..Submission::new(operation, lba) }
}

/// Reads a page's worth of 512-byte blocks from `lba` on.
pub(crate) fn read(tag: u16, lba: u64, page: usize) -> Submission {
    one(Operation::Read, tag, lba, page)
}

/// Writes a page from `lba` on.
pub(crate) fn write(tag: u16, lba: u64, page: usize) -> Submission {
    one(Operation::Write, tag, lba, page)
}
