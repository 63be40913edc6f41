//! A shim on which one container is made after another, each with one call disturbed.

use anyhow::{Context, Result, bail, ensure};

use super::driver::{Life, Shim};
use super::follow::{Call, Deed, Phase, Role, Seen};
use super::limits::Limit;
use crate::{Containerd, eventually};

/// What came of a disturbed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A request was answered with this message. Nothing is left.
    Refused {
        /// The request.
        request: &'static str,
        /// The answer.
        message: String,
    },
    /// Container and exec run, in the same sandbox as ever.
    Whole,
    /// A process that was killed before it executed counts as one that has ended, with this status.
    Ended(u32),
    /// The shim was killed, and what containerd does then left nothing.
    CleanedUp,
    /// The call was not made this time, or nobody was there to be killed.
    NotReached,
    /// Anything else: this is what is looked for.
    Wrong(String),
}

/// Lines of a picture that an attempt may change.
const LIMITED: [&str; 4] = ["limit ", "memory.", "pids.", "SigQ"];

/// What is compared: undisturbed, the same each time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Picture {
    life: Life,
    payloads: Vec<(Phase, Vec<String>)>,
}

/// A shim, and what its containers look like when nothing is disturbed.
#[expect(missing_debug_implementations, reason = "a ttrpc client has none")]
pub struct Stand<'a> {
    containerd: &'a Containerd,
    config: serde_json::Value,
    shim: Option<Shim<'a>>,
    pictures: [Option<Picture>; 2],
}

impl<'a> Stand<'a> {
    /// For containers of this spec, but for their program.
    #[must_use]
    pub fn new(containerd: &'a Containerd, config: serde_json::Value) -> Self {
        Self { containerd, config, shim: None, pictures: [None, None] }
    }

    /// A container's life, or an exec's, undisturbed: the calls in it. Later ones are compared with it.
    ///
    /// # Errors
    /// It is refused, or does not look the same twice.
    pub fn rehearse(&mut self, phase: Phase) -> Result<Seen> {
        let (first, seen) = self.live(phase, None)?;
        ensure!(first.life.refused.is_none(), "refused, undisturbed: {:?}", first.life.refused);
        let (second, _) = self.live(phase, None)?;
        if let Some(difference) = difference(&first, &second) {
            bail!("two undisturbed containers differ: {difference}");
        }
        self.pictures[phase as usize] = Some(first);
        Ok(seen)
    }

    /// Disturbs one call, and tells what comes of it and what exactly was disturbed.
    ///
    /// # Errors
    /// It was not rehearsed.
    pub fn disturb(&mut self, call: &Call, deed: Deed) -> Result<(Outcome, Option<String>)> {
        let (picture, seen) = match self.live(call.phase, Some(&(call.clone(), deed))) {
            Ok(lived) => lived,
            Err(error) => {
                // Whatever it was, the next one is not to suffer from it.
                self.drop_shim();
                return Ok((Outcome::Wrong(format!("{error:#}")), None));
            }
        };
        if seen.struck.is_none() || (matches!(deed, Deed::Kill(_)) && !seen.killed) {
            return Ok((Outcome::NotReached, seen.struck));
        }
        if deed == Deed::Kill(Role::Shim) {
            return Ok((Outcome::CleanedUp, seen.struck));
        }
        let reference = self.pictures[call.phase as usize].as_ref().context("not rehearsed")?;
        // Who executed all the same was locked down all the same.
        let odd = picture.payloads.iter().any(|payload| !reference.payloads.contains(payload));
        let outcome = match (&picture.life.refused, picture.life.ended) {
            (Some((request, message)), _) if !odd => Outcome::Refused { request, message: message.clone() },
            (None, Some(status)) if !odd && matches!(deed, Deed::Kill(_)) => Outcome::Ended(status),
            (Some(_), _) | (_, Some(_)) if odd => {
                let life = reference.life.clone();
                let run = Picture { life, payloads: picture.payloads };
                Outcome::Wrong(format!("it executed, {:?}", difference(reference, &run)))
            }
            _ => difference(reference, &picture).map_or(Outcome::Whole, Outcome::Wrong),
        };
        Ok((outcome, seen.struck))
    }

    /// Each value of a limit, and what comes of it.
    ///
    /// # Errors
    /// A create was not rehearsed.
    pub fn attempt_all(&self, config: &serde_json::Value, limit: &Limit) -> Result<Vec<(u64, Outcome)>> {
        let attempt = |value: &u64| {
            let mut spec = config.clone();
            (limit.spec)(&mut spec, *value);
            let wrapper = (limit.wrapper)(*value);
            let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
            Ok((*value, self.attempt(&wrapper, &spec)?))
        };
        limit.values.iter().map(attempt).collect()
    }

    /// A container's life on a shim that runs under a program which takes something away from it, or of another spec that
    /// gives it too little. What executes is locked down as ever; what the program makes of its limits is not looked at.
    ///
    /// # Errors
    /// A create was not rehearsed.
    fn attempt(&self, wrapper: &[&str], config: &serde_json::Value) -> Result<Outcome> {
        let reference = self.pictures[Phase::Create as usize].as_ref().context("not rehearsed")?;
        let before = self.containerd.shims()?;
        let mut shim = match Shim::start(self.containerd, config, wrapper, false) {
            Ok(shim) => shim,
            Err(error) => {
                eventually("no shim is left", || self.containerd.shims().is_ok_and(|shims| shims == before))?;
                return Ok(Outcome::Refused { request: "start", message: format!("{error:#}") });
            }
        };
        let lived = shim.live(Phase::Create, None).and_then(|(life, seen)| Ok((life?, seen)));
        let id = shim.id();
        // Or it was killed by a limit.
        let is_alive = shim.is_alive();
        let ended = if lived.is_ok() && is_alive { shim.end() } else { shim.kill() };
        let left = ended.and_then(|()| self.containerd.nothing_left(&id));
        let (life, seen) = match (lived, left) {
            (_, Err(error)) => return Ok(Outcome::Wrong(format!("{error:#}"))),
            (_, Ok(())) if !is_alive => return Ok(Outcome::CleanedUp),
            (Err(error), Ok(())) => return Ok(Outcome::Wrong(format!("{error:#}"))),
            (Ok(lived), Ok(())) => lived,
        };
        let is_limit = |line: &&String| !LIMITED.iter().any(|limit| line.starts_with(limit));
        for (phase, lines) in &seen.payloads {
            let found: Vec<String> = lines.iter().filter(is_limit).map(|line| line.replace(&id, "ID")).collect();
            let wanted = reference.payloads.iter().find(|(of, _)| of == phase).map(|(_, lines)| lines);
            let wanted: Vec<&String> = wanted.into_iter().flatten().filter(is_limit).collect();
            if wanted.len() != found.len() || wanted.iter().any(|line| !found.contains(line)) {
                return Ok(Outcome::Wrong(format!("{phase:?}: {found:?} instead of {wanted:?}")));
            }
        }
        Ok(match (life.refused, life.ended) {
            (Some((request, message)), _) => Outcome::Refused { request, message },
            (None, Some(status)) => Outcome::Ended(status),
            (None, None) => Outcome::Whole,
        })
    }

    fn live(&mut self, phase: Phase, target: Option<&(Call, Deed)>) -> Result<(Picture, Seen)> {
        if self.shim.is_none() {
            let is_to_live = !matches!(target, Some((_, Deed::Kill(Role::Shim))));
            self.shim = Some(Shim::start(self.containerd, &self.config, &[], is_to_live)?);
        }
        let shim = self.shim.as_mut().context("no shim")?;
        let (life, seen) = shim.live(phase, target)?;
        if seen.killed && matches!(target, Some((_, Deed::Kill(Role::Shim)))) {
            self.shim.take().context("no shim")?.abandon()?;
            return Ok((Picture::default(), seen));
        }
        let life = life?;
        shim.nothing_left()?;
        let id = shim.id();
        let same = |lines: &[String]| lines.iter().map(|line| line.replace(&id, "ID")).collect::<Vec<_>>();
        let payloads = seen.payloads.iter().map(|(phase, lines)| (*phase, same(lines))).collect();
        let life = Life { init: same(&life.init), exec: same(&life.exec), ..life };
        Ok((Picture { life, payloads }, seen))
    }

    fn drop_shim(&mut self) {
        if let Some(shim) = self.shim.take()
            && let Err(error) = shim.kill()
        {
            eprintln!("clean up: {error:#}");
        }
    }
}

impl Drop for Stand<'_> {
    fn drop(&mut self) {
        if let Some(shim) = self.shim.take()
            && let Err(error) = shim.end()
        {
            eprintln!("end a shim: {error:#}");
        }
    }
}

/// The first difference of two pictures.
fn difference(wanted: &Picture, found: &Picture) -> Option<String> {
    if let Some((request, message)) = &found.life.refused {
        return Some(format!("{request}: {message}"));
    }
    if let Some(status) = found.life.ended {
        return Some(format!("it started, and ended with status {status} before it said a word"));
    }
    let mut pairs = vec![
        ("init says".to_owned(), wanted.life.init.clone(), found.life.init.clone()),
        ("exec says".to_owned(), wanted.life.exec.clone(), found.life.exec.clone()),
    ];
    for (phase, wanted) in &wanted.payloads {
        let found = found.payloads.iter().find(|(of, _)| of == phase).map(|(_, lines)| lines.clone());
        pairs.push((format!("{phase:?}"), wanted.clone(), found.unwrap_or_default()));
    }
    for (what, wanted, found) in pairs {
        let missing: Vec<_> = wanted.iter().filter(|line| !found.contains(line)).take(4).collect();
        let more: Vec<_> = found.iter().filter(|line| !wanted.contains(line)).take(4).collect();
        if !missing.is_empty() || !more.is_empty() || wanted.len() != found.len() {
            return Some(format!("{what}: {more:?} instead of {missing:?}"));
        }
    }
    None
}
