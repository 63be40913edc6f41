//! What comes over the socket between shim and launcher is a request that encodes to the same again, or is refused;
//! descriptors are those that it names, and nothing is waited for.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;

#[path = "../../../shim/src/launcher/wire.rs"]
#[allow(dead_code, reason = "a launcher uses all of it")]
mod wire;

/// What `wire` needs of the shim's module of this name.
mod sys {
    use std::os::fd::{FromRawFd, OwnedFd};

    pub(crate) fn adopt(fd: i32) -> OwnedFd {
        // SAFETY: the number came with SCM_RIGHTS.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }
}

// The input: a body, to which its length is added; or behind a byte 0, all that is sent.
fuzz_target!(|data: &[u8]| {
    let (mut shim, launcher) = UnixStream::pair().expect("a pair of sockets");
    let sent = match data.split_first() {
        Some((0, raw)) => raw.to_vec(),
        _ => [&u32::try_from(data.len()).expect("inputs are short").to_le_bytes(), data].concat(),
    };
    shim.write_all(&sent).expect("the socket holds it");
    shim.shutdown(Shutdown::Write).expect("and ends");
    if let Ok((request, descriptors)) = wire::receive(&launcher) {
        // Nothing was passed with it.
        assert!(request.descriptors.is_empty() && descriptors.kinds().is_empty());
        let frame = wire::frame(&request).expect("what was decoded can be encoded");
        shim_sends_again(&frame, &request);
    }
    if let Ok(answer) = serde_json::from_slice::<wire::Answer>(data) {
        let frame = wire::frame(&answer).expect("what was decoded can be encoded");
        let again: wire::Answer = serde_json::from_slice(&frame[4..]).expect("and decoded");
        assert_eq!(wire::frame(&again).expect("and encoded"), frame);
    }
});

fn shim_sends_again(frame: &[u8], request: &wire::Request) {
    let (mut shim, launcher) = UnixStream::pair().expect("a pair of sockets");
    shim.write_all(frame).expect("the socket holds it");
    let (again, _) = wire::receive(&launcher).expect("what was encoded can be decoded");
    assert_eq!(wire::frame(&again).expect("and encoded"), frame);
    assert_eq!(again.plan, request.plan);
}
