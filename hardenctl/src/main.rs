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
mod prove;
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
            // What it quotes may come from a foreign manifest. Errors of a policy have several lines.
            let text: Vec<String> = format!("{error:#}").lines().map(records::printable).collect();
            anstream::eprintln!("{}error:{} {}", style::BAD, style::PLAIN, text.join("\n"));
            ExitCode::from(UNUSABLE)
        }
    }
}
