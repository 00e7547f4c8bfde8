//! Does what a request asks, and writes its status.
//!
//! Data moves when the request is completed, not when it is taken, so that a driver which touches a buffer in flight
//! is found out. Specification: 5.2.6 Device Operation.
use super::Inner;
use super::chain::Piece;
use super::request::{BlockRequest, Range};
use super::wire::block;

/// How honestly a request is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Execution {
    Honest,
    /// Only the first half of the data is written into the buffers; the used length tells so, the status says OK.
    Half,
    /// Nothing is done, and the status is this.
    Status(u8),
    /// Done, but the status byte is left as it was.
    StatusUnwritten,
}

/// What discarded sectors hold afterwards: the driver must not assume anything, least of all zeros.
const DISCARDED: u8 = 0xd1;

impl Inner {
    /// Executes `request`, which was sent at tick `sent`; tells how many bytes of the chain were written.
    pub(super) fn execute(&mut self, request: &BlockRequest, sent: u64, how: Execution) -> u64 {
        let refusal = request.refusal.or_else(|| self.late_refusal(request));
        if let Execution::Status(status) = how {
            return self.write_status_byte(request, status);
        }
        if let Some(status) = refusal {
            return self.write_status_byte(request, status);
        }
        let written = self.perform(request, sent, how);
        match how {
            Execution::StatusUnwritten => written,
            Execution::Half => {
                self.write_status_byte(request, block::OK);
                written
            }
            _ => written + self.write_status_byte(request, block::OK),
        }
    }

    /// The medium may have shrunk since the request was taken.
    fn late_refusal(&self, request: &BlockRequest) -> Option<u8> {
        request.beyond(self.registers.space.capacity()).then_some(block::IOERR)
    }

    fn write_status_byte(&self, request: &BlockRequest, status: u8) -> u64 {
        self.memory.write(request.status, &[status]).expect("bounds were checked when the chain was walked");
        1
    }

    /// The work itself; tells how many bytes of data were written into the chain.
    fn perform(&mut self, request: &BlockRequest, sent: u64, how: Execution) -> u64 {
        match request.kind {
            block::IN => {
                let data = self.disk.read(request.sector, request.data_len() / block::SECTOR);
                self.scatter(&request.writable, if how == Execution::Half { &data[..data.len() / 2] } else { &data })
            }
            block::OUT => {
                let data = self.gather(&request.readable);
                let volatile = self.writes_are_volatile();
                self.disk.write(request.sector, &data, volatile);
                0
            }
            block::FLUSH => {
                self.disk.flush(sent);
                0
            }
            block::GET_ID => {
                let id = self.config.id;
                self.scatter(&request.writable, &id)
            }
            block::DISCARD => self.fill(&request.ranges, DISCARDED),
            _ => self.fill(&request.ranges, 0),
        }
    }

    /// Spreads `data` over the pieces in order.
    fn scatter(&self, pieces: &[Piece], data: &[u8]) -> u64 {
        let mut rest = data;
        for piece in pieces {
            let (now, later) = rest.split_at(rest.len().min(piece.len as usize));
            self.memory.write(piece.address, now).expect("bounds were checked when the chain was walked");
            rest = later;
        }
        (data.len() - rest.len()) as u64
    }

    fn fill(&mut self, ranges: &[Range], value: u8) -> u64 {
        let volatile = self.writes_are_volatile();
        for range in ranges {
            let bytes = vec![value; range.sectors as usize * block::SECTOR as usize];
            self.disk.write(range.sector, &bytes, volatile);
        }
        0
    }
}
