//! The sandbox of `containerd-shim-hardened-v1`: what a container may do, and the lock-down that
//! makes it so.
//!
//! ```text
//! OCI spec ──decide──▶ Decision ──Admit──▶ hardened spec + lock-down plan ──Lockdown──▶ execve
//!                         └─────Refuse──▶ every violation at once
//! ```
//!
//! Deciding is pure: no I/O, no thread, no process, no unsafe code. `hardened-node` looks at the node
//! before it, and `hardened-lockdown` is run after it, by the container's process itself.

#![forbid(unsafe_code)]

mod annotation;
pub mod bundle;
pub mod capability;
mod decision;
mod describe;
mod device_filter;
mod devices;
mod feature;
mod identity;
mod kernel;
mod label;
pub mod landlock_plan;
mod mask_plan;
mod mounts;
mod path;
mod plan;
pub mod policy;
mod process;
pub mod profile;
mod refusal;
mod sandbox;
pub mod seccomp;
mod user_namespace;

pub use annotation::{ANNOTATIONS, PROFILE_ANNOTATION};
pub use decision::{Admission, ExecAdmission, Observations, decide};
pub use describe::Summary;
pub use device_filter::DeviceFilter;
pub use feature::{Demand, FEATURES, Feature};
pub use identity::{Identity, Kind, handler_of};
pub use kernel::{AppArmor, KernelSupport, LEAST_LANDLOCK_ABI};
pub use label::OWN_APPARMOR;
pub use mask_plan::MaskPlan;
pub use mounts::{foreign_sources, is_bind, is_id_mapped, is_subpath};
pub use plan::{LockdownPlan, PlanError};
pub use refusal::{Note, PodField, Reason, Refusal, Violation};
pub use sandbox::{Access, Device, ExecRules, HostNamespace, HostPaths, Sandbox, Users, grant_advice};
pub use user_namespace::UserNamespace;
