//! Errors of the Task service: a gRPC code and a text for a person.

use containerd_shim_protos::ttrpc::{self, Code};
use hardened_sandbox::{Reason, Refusal};

/// Why a call of the Task service failed.
#[derive(Debug)]
pub(crate) struct Fault {
    code: Code,
    message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NOT_FOUND, message)
    }

    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, message)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.reason() {
            Reason::Policy => Code::PERMISSION_DENIED,
            Reason::Invalid => Code::INVALID_ARGUMENT,
            Reason::Unsupported => Code::FAILED_PRECONDITION,
        };
        Self::new(code, refusal.to_string())
    }
}

/// What only the node's admin can fix: files, processes, the kernel.
impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::UNKNOWN, format!("hardened: {error:#}"))
    }
}

impl From<Fault> for ttrpc::Error {
    fn from(fault: Fault) -> Self {
        Self::RpcStatus(ttrpc::get_status(fault.code, fault.message))
    }
}
