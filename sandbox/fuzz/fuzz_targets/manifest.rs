//! A foreign manifest is read without a panic, and every object of it has a line of the text; or what is wrong is said.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

#[path = "../../../hardenctl/src/manifest.rs"]
#[allow(dead_code, reason = "hardenctl uses all of it")]
mod manifest;

/// What `manifest` needs of hardenctl's module of this name.
mod args {
    pub(crate) const HANDLER: &str = "hardened";
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.split('\n').count();
    match manifest::parse(Path::new("pod.yaml"), text) {
        Ok(objects) => {
            assert!(!objects.is_empty());
            for object in objects {
                assert!((1..=lines).contains(&object.line));
                let handled = !matches!(&object.content, manifest::Content::Pod { spec, handler, .. }
                    if *handler != spec.runtime_class_name.as_deref().unwrap_or(args::HANDLER));
                assert!(handled);
            }
        }
        Err(error) => assert!(format!("{error:#}").starts_with("pod.yaml:")),
    }
});
