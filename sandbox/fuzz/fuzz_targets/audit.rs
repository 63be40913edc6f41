//! Audit records, in which containers choose paths and names: none is too much, and what becomes of one shows
//! nothing raw and names no more rights than the kernel has.
#![no_main]

use std::sync::LazyLock;

use hardened_sandbox::audit::{AVC, Event, LANDLOCK_ACCESS, LANDLOCK_DOMAIN, parse};
use hardened_sandbox::policy::Policy;
use hardened_sandbox::record::{Record, printable};
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{KernelSupport, Observations, Ruleset, Standing, judge};
use libfuzzer_sys::fuzz_target;

static STANDING: LazyLock<Standing> = LazyLock::new(|| {
    let spec = serde_json::from_str(include_str!("../corpus/decide/restricted.json")).expect("the seed is a spec");
    let policy = Policy::built_in(Arch::X86_64);
    let admission = judge(&spec, &policy, &KernelSupport::assumed(), &Observations::none(None));
    Standing::new(&admission.expect("the seed is admitted"))
});

// The input: a byte that chooses the record's type, and its text.
fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let kinds = [AVC, LANDLOCK_ACCESS, LANDLOCK_DOMAIN, 1300];
    let kind = kinds[usize::from(*kind) % kinds.len()];
    let message = match parse(kind, text) {
        Ok(Some(message)) => message,
        Ok(None) => return,
        Err(malformed) => return assert_eq!(malformed.0, kind),
    };
    let (Event::Landlock { denial, .. } | Event::Labelled { denial, .. }) = message.event else { return };
    for ruleset in [Ruleset::Container, Ruleset::Exec] {
        let record = denial.record(&Record::default(), &STANDING, ruleset);
        assert!((1..=8).contains(&record.args.len()));
        assert!(record.args.iter().all(|right| right.is_ascii() && right.len() <= 40));
        for shown in [&record.resource, &record.policy_name, &record.message, &record.data] {
            assert_eq!(printable(shown), *shown, "of {record:?}");
        }
        let line = serde_json::to_vec(&record).expect("a record can be written");
        assert!(!line.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Record>(&line).expect("and read"), record);
    }
    assert!(denial.differs_by_object(&denial.elsewhere()));
});
