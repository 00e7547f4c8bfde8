//! What a function of this crate fails with is an error to its caller: it says what happened in one line, and `?` takes
//! it, whatever the caller's buffers and transports are made of.
use drv_virtio_block::arena::ArenaExhausted;
use drv_virtio_block::device::{BringUpError, ConfigError, Failed as BringUpFailed};
use drv_virtio_block::dma::{Buffer, RegionExhausted, Segment};
use drv_virtio_block::interrupt::ModeError;
use drv_virtio_block::lib_block::client::sync::Failed;
use drv_virtio_block::lib_block::client::{Fault, Refused as ClientRefused, Request as ClientRequest, Why};
use drv_virtio_block::lib_block::ring::IndexJump;
use drv_virtio_block::lib_block::{Status, client};
use drv_virtio_block::queue::{PrepareError, Violation};
use drv_virtio_block::request::{DeviceFault, Error as RequestError, Gone, Refusal, Refused, Request};
use drv_virtio_block::service::ServiceError;
use drv_virtio_block::startup::StartupError;
use drv_virtio_block::transport::TransportError;
use std::error::Error;

/// A buffer, or a device, that is nothing else: not even `Debug`.
struct Opaque;

// SAFETY: it has no memory.
unsafe impl Buffer for Opaque {
    fn segments(&self) -> &[Segment] {
        &[]
    }
}

/// Takes the error as a caller with `?` and a boxed error does, and gives its text.
fn told<E: Error + Send + Sync + 'static>(error: E) -> String {
    let fails = || -> Result<(), Box<dyn Error + Send + Sync>> { Err(error)? };
    let text = fails().expect_err("it is an error").to_string();
    assert!(!text.is_empty() && text.lines().count() == 1, "one line that says something: {text:?}");
    text
}

#[test]
fn every_error_of_the_driver_is_an_error_to_its_caller() {
    assert!(told(ArenaExhausted { wanted: 4096 }).contains("4096"));
    let region = told(RegionExhausted { wanted: 512, left: 100 });
    assert!(region.contains("512") && region.contains("100"), "{region}");
    for violation in [Violation::UnknownId, Violation::NotInFlight, Violation::NoStatus, Violation::IndexJump] {
        told(violation);
    }
    for fault in [DeviceFault::Unsupported, DeviceFault::ShortRead] {
        assert!(
            told(RequestError::Device(fault)).ends_with(&told(fault)),
            "the fault's own text, after who is to blame"
        );
    }
    assert!(told(DeviceFault::BadStatus(0x7f)).contains("0x7f"));
    for gone in [Gone::Reset, Gone::Cancelled] {
        assert!(told(RequestError::Gone(gone)).ends_with(&told(gone)));
    }
    told(Refusal::Full);
    told(TransportError::Gone);
    told(BringUpFailed { why: BringUpError::Transport(TransportError::Gone), device: Opaque });
}

/// The rest is held to it without a value at hand.
#[test]
fn every_other_error_is_one_by_its_type() {
    fn is_an_error<E: Error + Send + Sync + 'static>() {}
    is_an_error::<BringUpError>();
    is_an_error::<ConfigError>();
    is_an_error::<ModeError>();
    is_an_error::<PrepareError>();
    is_an_error::<ServiceError>();
    is_an_error::<StartupError>();
    is_an_error::<Refused<Opaque>>();
    is_an_error::<ClientRefused<Opaque>>();
    is_an_error::<Failed<Opaque>>();
    is_an_error::<Why>();
}

#[test]
fn every_error_of_the_client_library_is_an_error_to_its_caller() {
    told(IndexJump);
    for fault in [Fault::IndexJump, Fault::Malformed, Fault::UnknownTag, Fault::WrongEpoch, Fault::WrongBytes] {
        told(fault);
    }
    let failed = told(Failed { status: Status::IoError, moved: 3, buffer: Some(Opaque) });
    assert!(failed.contains(&Status::IoError.to_string()) && failed.contains('3'), "{failed}");
    let refused = ClientRefused { why: Why::Full, request: ClientRequest::<Opaque>::flush() };
    assert_eq!(told(refused), Why::Full.to_string());
}

#[test]
fn a_refused_request_becomes_its_reason_where_nobody_wants_it_back() {
    fn reason() -> Result<(), Refusal> {
        Err(Refused { why: Refusal::Full, request: Request::<Opaque>::flush() })?;
        Ok(())
    }
    fn blame() -> Result<(), RequestError> {
        Err(Refused { why: Refusal::Full, request: Request::<Opaque>::flush() })?;
        Ok(())
    }
    fn client() -> Result<(), Why> {
        Err(client::Refused { why: Why::Full, request: ClientRequest::<Opaque>::flush() })?;
        Ok(())
    }
    fn waited() -> Result<(), Status> {
        Err(Failed { status: Status::Reset, moved: 0, buffer: Some(Opaque) })?;
        Ok(())
    }
    assert_eq!(reason(), Err(Refusal::Full));
    assert_eq!(blame(), Err(RequestError::Caller(Refusal::Full)));
    assert_eq!(client(), Err(Why::Full));
    assert_eq!(waited(), Err(Status::Reset));
}
