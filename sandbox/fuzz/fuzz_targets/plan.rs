//! Bytes that claim to be a lock-down plan are decoded to one, as a launcher does, or refused.
#![no_main]

use hardened_sandbox::LockdownPlan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(plan) = serde_json::from_slice::<LockdownPlan>(data) {
        let bytes = serde_json::to_vec(&plan).expect("a plan that was decoded can be encoded");
        assert_eq!(serde_json::from_slice::<LockdownPlan>(&bytes).expect("and decoded again"), plan);
    }
});
