//! A seccomp profile in OCI's form becomes a filter that compiles, answers in the program as in the rules, and never
//! widens what it meets.
#![no_main]

use std::sync::LazyLock;

use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::{Arch, Call, Filter};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;

const ARCH: Arch = Arch::X86_64;

static BASELINE: LazyLock<Filter> = LazyLock::new(|| BuiltIn::Baseline.sandbox(ARCH).filter().clone());

/// Values at the edges that rules are about.
const VALUES: [u64; 6] = [0, 1, 0x7e02_0000, u32::MAX as u64, 1 << 32, u64::MAX];

fuzz_target!(|data: &[u8]| {
    let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(data) else { return };
    let filter = match Filter::from_oci(&profile, ARCH) {
        Ok(filter) => filter,
        Err(error) => return assert!(error.to_string().starts_with("linux.seccomp.")),
    };
    let met = filter.meet(&BASELINE);
    assert!(met.is_within(&BASELINE) && met.is_within(&filter));
    // Too long, and said so.
    let Ok(program) = filter.compile() else { return };
    assert!(program.len() <= 4096);
    for (number, _) in filter.rules().take(40).chain([(0, &[][..]), (9999, &[])]) {
        for value in VALUES {
            let arguments = [value, 0, value, 1, value, value];
            let decided = filter.decide(number, &arguments);
            let call = Call { number, arch: ARCH.audit(), arguments };
            assert_eq!(program.answer(&call), Some(decided.word()), "of call {number} with {arguments:?}");
            assert!(!met.decide(number, &arguments).allows() || decided.allows());
        }
    }
});
