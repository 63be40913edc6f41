//! Bytes that claim to be a lock-down plan are decoded to one, or refused.
#![no_main]

use hardened_sandbox::LockdownPlan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(plan) = LockdownPlan::decode(data) {
        let bytes = plan.encode().expect("a plan that was decoded can be encoded");
        assert_eq!(LockdownPlan::decode(&bytes).expect("and decoded again"), plan);
    }
});
