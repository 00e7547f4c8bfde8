//! A virtio-blk device that another process is, behind a vhost-user socket.
//!
//! | Part | What it is |
//! |---|---|
//! | [`Connection`] | connects, reconnects, has what the platform waits for |
//! | [`VhostUser`] | the driver's [`Transport`](drv_virtio_block::transport::Transport) |
//! | [`Session`] | the driver's life over it: up, lost, up again, with what was in flight failed or replayed |
//! | `line` | what the present back-end was told; status and reset |
//! | `control`, `guard` | messages, each bounded in time |
//!
//! Everything a back-end does is expected: it is absent, stalls, lies, dies. Each is an error of one line within
//! [`Options::patience`]; nothing hangs, and no file descriptor or memory is left behind.
mod connection;
mod control;
mod error;
mod guard;
mod line;
mod session;
mod transport;

pub use connection::{Connection, Options};
pub use error::{ConnectError, ControlError, Fault};
pub use session::{OnLoss, Parked, Resumed, Session, SessionError};
pub use transport::VhostUser;
