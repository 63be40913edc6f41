//! The sandbox of `containerd-shim-hardened-v1`: what a container may do, and the lock-down that
//! makes it so.
//!
//! ```text
//! config.json ──parse──▶ Request ──decide──▶ Admission ──▶ Bundle, written as libcontainer's spec
//!                                     │          └──────▶ LockdownPlan
//!                                     └──▶ Refusal: every violation at once
//! ```
//!
//! Deciding is pure: no I/O, no thread, no process, no unsafe code. `hardened-node` looks at the node
//! before it, and `hardened-lockdown` is run after it, by the container's process itself.

#![forbid(unsafe_code)]

pub mod audit;
pub mod bundle;
pub mod capability;
mod decide;
mod denial;
mod describe;
mod device_filter;
mod exposure;
mod feature;
mod identity;
mod kernel;
mod label;
pub mod landlock_plan;
mod mark;
mod mask_plan;
mod observations;
mod path;
mod pattern;
mod placement;
mod plan;
pub mod policy;
pub mod profile;
pub mod record;
mod refusal;
mod request;
mod sandbox;
pub mod seccomp;
mod standing;

pub use decide::{
    ANNOTATIONS, Admission, ExecAdmission, PROFILE_ANNOTATION, UserNamespace, decide, folder_of_volumes, judge,
    profile_asked_for, sources_to_locate,
};
pub use denial::{Explanation, Filters, telling_argument};
pub use describe::Summary;
pub use device_filter::DeviceFilter;
pub use exposure::{Finding, HOST_PATHS, score};
pub use feature::{Demand, FEATURES, Feature};
pub use identity::{Identity, Kind, handler_of};
pub use kernel::{AppArmor, KernelSupport, LEAST_LANDLOCK_ABI};
pub use label::OWN_APPARMOR;
pub use mark::{Mark, Ruleset};
pub use mask_plan::MaskPlan;
pub use observations::{Joined, Location, Observations, VolumeSource};
pub use placement::{CgroupMounts, Namespaces, Placement};
pub use plan::LockdownPlan;
pub use refusal::{Note, PodField, Reason, Refusal, Violation};
pub use request::{ProcessRequest, Request};
pub use sandbox::{Access, Device, ExecRules, HostNamespace, HostPaths, Sandbox, Users, grant_advice};
pub use standing::{Answer, Standing};
