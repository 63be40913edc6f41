//! Places that a container works in: its working directory, its program, its volumes, and what its commands write to.

use std::path::Path;

use hardened_sandbox::Answer;
use k8s_openapi::api::core::v1::Container;

use super::command::name_of;
use super::{Subject, Warning};

/// Folders that hold programs and libraries, wherever they are.
const OF_PROGRAMS: &[&str] = &["bin", "lib", "lib32", "lib64", "libexec", "sbin"];

/// A working directory in which nothing can be written, though the pod would have it.
pub(super) fn working_directory(field: &str, directory: &Path, subject: &Subject<'_>) -> Option<Warning> {
    if directory == Path::new("/") {
        return None;
    }
    if directory.starts_with("/sys") {
        return Some(Warning::new(
            field,
            format!("{} is in sysfs: nothing can be written there, and no folder is made", directory.display()),
            "use a directory of the image or of a volume",
        ));
    }
    // A file of any name.
    let Answer { because, setting, .. } = subject.standing.kept_by_profile(&directory.join("file"))?;
    Some(Warning::new(
        field,
        format!("nothing can be written in {}: {because}", directory.display()),
        in_other_places("use a directory elsewhere, or mount a volume there", setting),
    ))
}

/// A program that cannot be executed where it is.
pub(super) fn program(field: &str, arguments: &[String], subject: &Subject<'_>) -> Option<Warning> {
    let path = Path::new(arguments.first()?);
    let Answer { allowed: false, because, setting } = subject.standing.execute(path) else { return None };
    Some(Warning::new(
        field,
        format!("{} cannot be executed: {because}", path.display()),
        in_other_places("run a program of the image", setting),
    ))
}

/// Volumes over folders of programs, from which nothing can be executed. (None is read-only because of where it is.)
pub(super) fn volumes(
    container: &Container,
    subject: &Subject<'_>,
    field: &dyn Fn(&str) -> String,
    all: &mut Vec<Warning>,
) {
    for mount in container.volume_mounts.iter().flatten() {
        let at = Path::new(&mount.mount_path);
        let holds_programs = at.iter().any(|part| OF_PROGRAMS.iter().any(|name| part == *name));
        let answer = subject.standing.execute(at);
        if holds_programs && !answer.allowed {
            all.push(Warning::new(
                field(&format!("volumeMounts[{}]", mount.mount_path)),
                format!("no program or library in it can be executed: {}", answer.because),
                in_other_places("build them into the image", answer.setting),
            ));
        }
    }
}

/// A file that a command writes to, and cannot.
pub(super) fn written(field: &str, words: &[&str], path: &str, subject: &Subject<'_>) -> Option<Warning> {
    let Answer { because, setting, .. } = subject.standing.kept_by_profile(Path::new(path))?;
    let program = words.first().map_or("", |word| name_of(word));
    Some(Warning::new(
        field,
        format!("runs {program}, which cannot write to {path}: {because}"),
        in_other_places("do it when the image is built, or write elsewhere", setting),
    ))
}

/// What to change in the pod; or in the policy, where a setting of it helps.
fn in_other_places(pod: &str, setting: Option<String>) -> String {
    setting.map_or_else(|| pod.to_owned(), |setting| format!("{pod}; or have the node's policy say {setting}"))
}
