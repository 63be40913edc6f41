//! A program: how it is started and asked, and the trial of it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use hardened_integration::{Containerd, eventually, repository, run};

use super::debian::Debian;
use super::page;
use crate::policy;

/// The folder of `scripts/setup` with all programs.
pub(super) const DEBIAN: &str = "debian";

/// Asks until the answer is there: what it is asked, what the answer has, whose processes there must be.
const ASK: &str = r#"
end=$(($(date +%s) + 60))
while [ $(date +%s) -lt $end ]; do
    answer=$(timeout 10 sh -c "$1" 2>&1)
    case $answer in
    *"$2"*) [ -z "$3" ] || pgrep -u "$3" >/dev/null && exit ;;
    esac
    sleep 0.2
done
echo "$answer"
exit 1"#;

/// A program of Debian's, as its usual image starts it.
pub(crate) struct Program {
    /// Of the trial and of the row.
    pub(crate) name: &'static str,
    /// The package that has its version.
    pub(super) package: &'static str,
    /// What its image has beside the package: a shell script, as a Dockerfile's RUN.
    pub(super) build: &'static str,
    /// What the entrypoint does that is worth telling.
    pub(super) way: &'static str,
    pub(super) baseline: Start,
    pub(super) restricted: Restricted,
    /// The request in words, as a shell command of an exec, and what its answer has.
    pub(super) request: &'static str,
    pub(super) ask: &'static str,
    pub(super) answer: &'static str,
}

/// What is known of a program under `restricted`.
pub(super) enum Restricted {
    /// It answers, started like this.
    Answers(Start),
    /// It does not when started as under `baseline`: its output or the request's has these words. And why, for people.
    Fails { words: &'static str, why: &'static str },
}

/// How a container is started.
#[derive(Clone, Copy)]
pub(super) struct Start {
    entrypoint: &'static str,
    user: &'static str,
    /// Whose processes there must be when it answers.
    becomes: &'static str,
    cwd: &'static str,
    env: &'static str,
    read_only: bool,
    tmpfs: &'static [&'static str],
    /// A line of the node's profile.
    grant: &'static str,
    /// Whether that profile extends `restricted`.
    restricted: bool,
}

/// As root.
pub(super) const fn root(entrypoint: &'static str) -> Start {
    Start {
        entrypoint,
        user: "root",
        becomes: "",
        cwd: "",
        env: "",
        read_only: false,
        tmpfs: &[],
        grant: "",
        restricted: false,
    }
}

/// As another user.
pub(super) const fn user(user: &'static str, entrypoint: &'static str) -> Start {
    Start { user, ..root(entrypoint) }
}

/// Under `restricted`, as a user, with a read-only root file system and a writable `/tmp`.
pub(super) const fn locked(entrypoint: &'static str) -> Start {
    user("www-data", entrypoint).read_only().tmpfs(&["/tmp"]).restricted()
}

impl Start {
    /// The entrypoint drops root for this user.
    pub(super) const fn becomes(self, becomes: &'static str) -> Self {
        Self { becomes, ..self }
    }

    pub(super) const fn user(self, user: &'static str) -> Self {
        Self { user, ..self }
    }

    pub(super) const fn cwd(self, cwd: &'static str) -> Self {
        Self { cwd, ..self }
    }

    /// A variable of the environment, for the request too.
    pub(super) const fn env(self, env: &'static str) -> Self {
        Self { env, ..self }
    }

    /// Folders that are a tmpfs.
    pub(super) const fn tmpfs(self, tmpfs: &'static [&'static str]) -> Self {
        Self { tmpfs, ..self }
    }

    pub(super) const fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    pub(super) const fn grant(self, grant: &'static str) -> Self {
        Self { grant, ..self }
    }

    const fn restricted(self) -> Self {
        Self { restricted: true, ..self }
    }

    /// Starts a container like this. The pod asks for `restricted` by annotation, as it may anywhere.
    pub(super) fn run(&self, c: &Containerd, debian: &Debian<'_>) -> Result<()> {
        let (default, extends) = if self.restricted { ("baseline", "restricted") } else { ("asked", "baseline") };
        let policy = format!("default = \"{default}\"\n[profile.asked]\nextends = \"{extends}\"\n{}\n", self.grant);
        let folder = policy::policy(c, &policy)?;
        let mut options = vec!["--runtime-config-path".to_owned(), folder.path().display().to_string()];
        options.extend(["--user".to_owned(), self.user.to_owned()]);
        if self.restricted {
            options.extend(["--annotation".to_owned(), "io.containerd.hardened.v1/profile=asked".to_owned()]);
        }
        for (option, value) in [("--cwd", self.cwd), ("--env", self.env)] {
            if !value.is_empty() {
                options.extend([option.to_owned(), value.to_owned()]);
            }
        }
        if self.read_only {
            options.push("--read-only".to_owned());
        }
        for at in self.tmpfs {
            options.extend(["--mount".to_owned(), format!("type=tmpfs,src=tmpfs,dst={at},options=mode=1777")]);
        }
        debian.start(&options, &["sh", "-c", self.entrypoint])
    }
}

/// The last lines of a log.
fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

impl Program {
    /// Starts it under both profiles, and compares what was seen with `docs/programs.md`.
    pub(crate) fn trial(&self, c: &Containerd) -> Result<()> {
        let baseline = self.answers(c, &self.baseline).context("baseline")?;
        let restricted = match &self.restricted {
            Restricted::Answers(start) => self.answers(c, start).context("restricted")?,
            Restricted::Fails { words, why } => self.fails(c, words, why).context("restricted")?,
        };
        page::has(self.name, || self.version(), &[self.started(), self.request.to_owned(), baseline, restricted])
    }

    fn image<'c>(&self, c: &'c Containerd) -> Result<Debian<'c>> {
        let debian = Debian::mount(c, DEBIAN)?;
        if !self.build.is_empty() {
            debian.build(self.build)?;
        }
        Ok(debian)
    }

    /// The cell of a program that was asked and answered.
    fn answers(&self, c: &Containerd, start: &Start) -> Result<String> {
        let debian = self.image(c)?;
        start.run(c, &debian)?;
        let asked = debian.exec(&["sh", "-c", ASK, "sh", self.ask, self.answer, start.becomes])?;
        // The only place that says so.
        asked.ok().with_context(|| format!("{}: no answer\n{}", self.ask, end_of(&debian.log())))?;
        let mut cell = "ok".to_owned();
        if !start.grant.is_empty() {
            cell += &format!(", with `{}`", start.grant);
        }
        if start.restricted {
            if start.user != "www-data" {
                cell += &format!(", as `{}`", start.user);
            }
            for at in start.tmpfs.iter().filter(|at| **at != "/tmp") {
                cell += &format!(", tmpfs `{at}`");
            }
        }
        Ok(cell)
    }

    /// The cell of a program that was started as under `baseline`, and said why it cannot.
    fn fails(&self, c: &Containerd, words: &str, why: &str) -> Result<String> {
        let debian = self.image(c)?;
        self.baseline.restricted().run(c, &debian)?;
        let says = || {
            let answer = debian.exec(&["sh", "-c", self.ask]).map(|out| out.text() + &out.stderr).unwrap_or_default();
            debian.log() + &answer
        };
        eventually(words, || says().contains(words)).with_context(|| end_of(&says()))?;
        Ok(why.to_owned())
    }

    /// How its usual image starts it.
    fn started(&self) -> String {
        let start = &self.baseline;
        let mut words = vec![match start.becomes {
            "" => format!("as `{}`", start.user),
            becomes => format!("as `{}`, then `{becomes}`", start.user),
        }];
        if !start.cwd.is_empty() {
            words.push(format!("in `{}`", start.cwd));
        }
        if start.read_only {
            words.push("read-only root".to_owned());
        }
        words.extend(start.tmpfs.iter().map(|at| format!("tmpfs `{at}`")));
        if !self.way.is_empty() {
            words.push(self.way.to_owned());
        }
        words.join("; ")
    }

    /// Upstream's version, without Debian's part.
    fn version(&self) -> Result<String> {
        let admindir = repository().join(".cache").join(DEBIAN).join("var/lib/dpkg");
        let mut query = Command::new("dpkg-query");
        query.arg("--admindir").arg(admindir).args(["-W", "-f", "${Version}", self.package]);
        let version = run(&mut query, b"", Duration::from_secs(10))?.ok()?.text();
        let upstream = version.rsplit_once(':').map_or(version.as_str(), |(_, rest)| rest);
        Ok(upstream.split(['-', '+']).next().unwrap_or(upstream).to_owned())
    }
}
