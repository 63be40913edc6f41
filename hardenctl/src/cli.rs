//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

#[cfg(feature = "agent")]
use crate::agent;
use crate::args::{Format, PolicyPath, dns_label};
use crate::{check, doctor, events, explain, install, policy, score};

/// Checks, explains and installs hardened, the containerd runtime that sandboxes every container.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tells what will be refused or tightened and what may break, without a node.
    ///
    /// Reads Kubernetes manifests (Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job,
    /// CronJob, List; several documents a file) and OCI config.json files. Exit code 0: all would
    /// start; 1: something would be refused; 2: something cannot be read.
    Check {
        #[command(flatten)]
        policy: PolicyPath,
        /// Format of the report.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Same as --format json.
        #[arg(long)]
        json: bool,
        /// Kubernetes namespace of manifests that name none.
        #[arg(long, short, default_value = "default", value_parser = dns_label)]
        namespace: String,
        /// Uses this profile for all containers instead of the policy's rules: which pods could move to it?
        #[arg(long)]
        profile: Option<String>,
        /// Also prints what follows from privileged: true.
        #[arg(long, short)]
        verbose: bool,
        /// Also prints pause containers, long lists in full, and what --verbose does.
        #[arg(long)]
        all: bool,
        /// Manifests or config.json files; - for standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Prints the effective sandbox of each container of a manifest and where each part comes from,
    /// or that of a container running on this node.
    Explain {
        #[command(flatten)]
        policy: PolicyPath,
        /// Prints JSON, which always has everything.
        #[arg(long)]
        json: bool,
        /// Also prints what is empty or as under runc, the pause container, and long lists in full.
        #[arg(long)]
        all: bool,
        /// Kubernetes namespace of manifests that name none.
        #[arg(long, short, default_value = "default", value_parser = dns_label)]
        namespace: String,
        /// A container on this node: its id or a unique prefix of it, optionally as NAMESPACE/ID with
        /// containerd's namespace.
        #[arg(long, value_name = "ID", conflicts_with = "file")]
        container: Option<String>,
        /// A manifest or config.json; - for standard input.
        #[arg(required_unless_present = "container")]
        file: Option<PathBuf>,
    },
    #[cfg(feature = "agent")]
    Agent(agent::Agent),
    Events(events::Events),
    Why(events::Why),
    Top(events::Top),
    Score(score::Score),
    /// Works on policy files.
    Policy {
        #[command(subcommand)]
        command: policy::Command,
    },
    /// Reports what this node's kernel, containerd and files offer, and what is missing.
    ///
    /// Exit code 0: containers can be started; 1: they cannot.
    Doctor {
        /// Prints JSON.
        #[arg(long, conflicts_with = "labels")]
        json: bool,
        /// Prints node labels, for `kubectl label node NAME $(hardenctl doctor --labels)`.
        #[arg(long)]
        labels: bool,
        /// Prints every kernel feature that is used, and what happens where it is missing.
        #[arg(long, conflicts_with_all = ["json", "labels"])]
        features: bool,
        #[command(flatten)]
        policy: PolicyPath,
    },
    Install(install::Install),
    Uninstall(install::Uninstall),
    Status(install::Status),
    /// Prints a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages into a folder.
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Check { policy, format, json, namespace, profile, verbose, all, files } => {
                let format = if json { Format::Json } else { format };
                check::run(&policy.policy, profile.as_deref(), format, verbose, all, &namespace, &files)
            }
            Self::Explain { json, all, container: Some(id), .. } => explain::running(&id, json, all),
            Self::Explain { policy, json, all, namespace, file, container: None } => {
                explain::run(&policy.policy, json, all, &namespace, &file.unwrap_or_default())
            }
            #[cfg(feature = "agent")]
            Self::Agent(agent) => agent.run(),
            Self::Events(events) => events.run(),
            Self::Why(why) => why.run(),
            Self::Top(top) => top.run(),
            Self::Score(score) => score.run(),
            Self::Policy { command } => command.run(),
            Self::Install(install) => install.run(),
            Self::Uninstall(uninstall) => uninstall.run(),
            Self::Status(status) => status.run(),
            Self::Doctor { features: true, .. } => Ok(doctor::features()),
            Self::Doctor { json, labels, policy, .. } => doctor::run(json, labels, &policy.policy),
            Self::Completion { shell } => {
                clap_complete::generate(shell, &mut Arguments::command(), "hardenctl", &mut std::io::stdout());
                Ok(ExitCode::SUCCESS)
            }
            Self::Man { folder } => {
                clap_mangen::generate_to(Arguments::command(), &folder)
                    .with_context(|| format!("write manual pages into {}", folder.display()))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
