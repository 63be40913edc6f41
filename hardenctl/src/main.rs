//! `hardenctl`: what a person or a CI job runs to check, explain and install hardened.

#[cfg(feature = "agent")]
mod agent;
mod args;
mod check;
mod cli;
mod doctor;
mod events;
mod explain;
mod facts;
mod install;
mod manifest;
mod pod;
mod policy;
mod policy_source;
mod records;
mod report;
mod sarif;
mod score;
mod style;
mod table;
mod warning;

use std::process::ExitCode;

use clap::Parser;

/// Exit code for what cannot be answered at all: bad input, files that cannot be read.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match arguments.command.run() {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("{}error:{} {error:#}", style::BAD, style::PLAIN);
            ExitCode::from(UNUSABLE)
        }
    }
}
