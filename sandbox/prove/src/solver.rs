//! The solver: a process that reads questions and writes answers. What is asked, and what an answer means, is known
//! elsewhere.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::script::Script;

/// Debian's package and the program in it are called so.
const PROGRAM: &str = "z3";

/// A question that takes longer counts as unanswered. Those of real filters take a few hundredths of a second.
const MILLISECONDS: u32 = 60_000;

/// The most memory that it may use, in MB.
const MEGABYTES: u32 = 2048;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SolverError {
    /// It is not installed.
    #[error("the solver {PROGRAM} is not installed: apt-get install {PROGRAM}, or your distribution's package of it")]
    Missing,
    /// It cannot be run, or has ended.
    #[error("the solver {PROGRAM}")]
    Process(#[from] io::Error),
    /// It takes too long.
    #[error("the solver {PROGRAM} found no answer within {} seconds", MILLISECONDS / 1000)]
    GaveUp,
    /// It does not understand, or we do not.
    #[error("the solver {PROGRAM} says {0:?}; expected sat, unsat or values")]
    Unexpected(String),
}

/// A running solver. It ends with this value.
#[derive(Debug)]
pub struct Solver {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    asked: usize,
}

impl Solver {
    /// Starts one.
    ///
    /// # Errors
    /// It is not installed, or cannot be run.
    pub fn start() -> Result<Self, SolverError> {
        let mut process = Command::new(PROGRAM)
            .args(["-in", "-smt2", &format!("-memory:{MEGABYTES}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(
                |error| if error.kind() == io::ErrorKind::NotFound { SolverError::Missing } else { error.into() },
            )?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (questions, answers) = pipes.ok_or_else(|| io::Error::other("started without pipes"))?;
        Ok(Self { process, questions, answers: BufReader::new(answers), asked: 0 })
    }

    /// How many questions it has answered.
    #[must_use]
    pub const fn asked(&self) -> usize {
        self.asked
    }

    /// Values of these terms, for inputs of which everything holds that the script asserts; `None` where there are no
    /// such inputs.
    pub(crate) fn values(&mut self, script: &Script, of: &[&str]) -> Result<Option<Vec<u64>>, SolverError> {
        write!(
            self.questions,
            "(reset)\n(set-option :error-behavior immediate-exit)\n(set-option :timeout {MILLISECONDS})\n\
             (set-logic QF_BV)\n{}(check-sat)\n",
            script.text()
        )?;
        self.questions.flush()?;
        self.asked += 1;
        let answer = match self.line()?.trim() {
            "unsat" => None,
            "sat" => {
                writeln!(self.questions, "(get-value ({}))", of.join(" "))?;
                Some(self.constants(of.len())?)
            }
            "unknown" => return Err(SolverError::GaveUp),
            other => return Err(SolverError::Unexpected(other.to_owned())),
        };
        Ok(answer)
    }

    /// Reads `((term value) ...)`, which may be on several lines.
    fn constants(&mut self, expected: usize) -> Result<Vec<u64>, SolverError> {
        let mut text = String::new();
        loop {
            text += &self.line()?;
            let depth = text.matches('(').count().checked_sub(text.matches(')').count());
            match depth {
                Some(0) => break,
                Some(_) => {}
                None => return Err(SolverError::Unexpected(text)),
            }
        }
        match parse(&text) {
            Some(values) if values.len() == expected => Ok(values),
            _ => Err(SolverError::Unexpected(text)),
        }
    }

    fn line(&mut self) -> Result<String, SolverError> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(line)
    }
}

impl Drop for Solver {
    fn drop(&mut self) {
        // One that has ended by itself is only reaped.
        self.process.kill().and_then(|()| self.process.wait()).ok();
    }
}

/// The values of an answer: `((t1 #x0000002a) (t2 #x05))`.
fn parse(text: &str) -> Option<Vec<u64>> {
    let values = text.split('(').filter_map(|pair| pair.split_once(' '));
    values
        .map(|(_, value)| u64::from_str_radix(value.trim().trim_end_matches(')').strip_prefix("#x")?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_any_number_of_lines() {
        assert_eq!(parse("((arch #xc000003e))\n"), Some(vec![0xc000_003e]));
        assert_eq!(parse("((a #x00000001)\n (b #xffffffffffffffff)\n (t7 #x05))"), Some(vec![1, u64::MAX, 5]));
        for other in ["((a true))", "((a (_ bv1 32)))", "((a #b01))"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_solver_answers_and_says_what_it_does_not_understand() {
        let mut solver = Solver::start().unwrap();
        let mut script = Script::default();
        script.declare("x", 32);
        assert!(solver.values(&script, &["x"]).unwrap().is_some());
        script.assert("(bvult x #x00000001)");
        assert_eq!(solver.values(&script, &["x", "x"]).unwrap(), Some(vec![0, 0]));
        script.assert("(= x #x00000007)");
        assert_eq!(solver.values(&script, &["x"]).unwrap(), None);
        script.assert("(= x y)");
        let error = solver.values(&script, &["x"]).unwrap_err();
        assert!(matches!(&error, SolverError::Unexpected(said) if said.contains("y")), "{error}");
    }
}
