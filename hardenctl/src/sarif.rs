//! SARIF 2.1.0, which code scanning reads (OASIS, sarif-v2.1.0).

use serde_json::{Value, json};

use crate::report::Report;

pub(crate) fn log(reports: &[Report]) -> Value {
    let mut results = Vec::new();
    for report in reports {
        let result = |rule: &str, level: &str, text: String| {
            json!({
                "ruleId": rule,
                "level": level,
                "message": {"text": format!("{} {}/{}: {text}", report.kind, report.namespace, report.name)},
                "locations": [{"physicalLocation": {
                    "artifactLocation": {"uri": report.file},
                    "region": {"startLine": report.line},
                }}],
            })
        };
        for container in &report.containers {
            for v in &container.violations {
                results.push(result("refused", "error", format!("{}: {} -> {}", v.field, v.problem, v.advice)));
            }
            for change in &container.tightened {
                results.push(result(
                    "tightened",
                    "note",
                    format!("{}: {}: {}", container.name, change.field, change.change),
                ));
            }
            for warning in &container.warnings {
                results.push(result("may-break", "warning", warning.to_string()));
            }
        }
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "hardenctl",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": [
                    {"id": "refused", "shortDescription": {"text": "The container would be refused"}},
                    {"id": "tightened", "shortDescription": {"text": "The container gets less than it asks for"}},
                    {"id": "may-break", "shortDescription": {"text": "The program may need what the sandbox denies"}},
                ],
            }},
            "results": results,
        }],
    })
}
