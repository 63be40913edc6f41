//! `containerd-shim-hardened-v1`: one binary, two lives.
//!
//! The *shim* serves containerd's Task API for the containers of one pod. The *launcher* is the
//! same binary run again for each create and exec: single-threaded, short-lived, and the only
//! code that calls libcontainer. Which life it is gets decided here, before any thread or runtime
//! exists.

#![deny(unsafe_code)]

mod cgroup;
mod container;
mod create;
mod delete;
mod events;
mod exec;
mod explain;
mod fault;
mod id;
mod info;
mod judged;
mod launcher;
mod logging;
mod metrics;
mod observe;
mod oom;
mod process;
mod reaper;
mod registry;
mod runtime_options;
mod server;
mod service;
mod start;
mod state;
mod stdio;
mod sys;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use containerd_shim::Flags;

/// Runtime type, as containerd's configuration names it.
const RUNTIME: &str = "io.containerd.hardened.v1";

fn main() -> ExitCode {
    // A limit of the node's on the size of files is an error of a write, not the end of a pod's shim.
    if let Err(error) = sys::survive_too_large_files() {
        eprintln!("containerd-shim-hardened-v1: ignore SIGXFSZ: {error}");
        return ExitCode::FAILURE;
    }
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|a| a == launcher::ARGUMENT) {
        return launcher::child::main();
    }
    match shim(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what `start` and `delete` print here.
            eprintln!("containerd-shim-hardened-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn shim(arguments: &[std::ffi::OsString]) -> Result<()> {
    let flags = containerd_shim::parse(arguments).context("command line")?;
    if flags.version {
        println!("containerd-shim-hardened-v1:\n  Version:  {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if flags.info {
        return info::print();
    }
    check(&flags)?;
    match flags.action.as_str() {
        "start" => start::run(&flags),
        "delete" => delete::run(&flags),
        "serve" => server::run(&flags),
        "" => bail!(
            "no action given: expected start or delete. containerd runs this program; to try it by hand, \
                     `ctr run --runtime {RUNTIME}`"
        ),
        other => bail!("action {other:?}: expected start or delete"),
    }
}

fn check(flags: &Flags) -> Result<()> {
    id::check(&flags.namespace).map_err(|e| anyhow::anyhow!("-namespace: {e}"))?;
    id::check(&flags.id).map_err(|e| anyhow::anyhow!("-id: {e}"))
}
