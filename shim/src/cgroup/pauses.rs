//! Pauses between tries.

use std::time::{Duration, Instant};

/// How many tries follow each other without a pause. A process that has been waited for leaves its cgroup microseconds
/// later, when it stops running for the last time (Linux 6.18, kernel/cgroup/cgroup.c, `cgroup_task_dead`).
const AT_ONCE: u32 = 20;

/// The longest pause.
const LONGEST: Duration = Duration::from_millis(10);

/// Pauses that become longer, up to an end.
#[derive(Debug)]
pub(super) struct Pauses {
    begin: Instant,
    patience: Duration,
    tries: u32,
}

impl Pauses {
    /// `patience`: how long all tries together may take.
    pub(super) fn new(patience: Duration) -> Self {
        Self { begin: Instant::now(), patience, tries: 0 }
    }

    /// Pauses before the next try. Returns `false` at once if the time is up.
    pub(super) async fn next(&mut self) -> bool {
        if self.begin.elapsed() >= self.patience {
            return false;
        }
        self.tries += 1;
        if self.tries <= AT_ONCE {
            tokio::task::yield_now().await;
        } else {
            // 2, 4 and 8 milliseconds, then the longest.
            tokio::time::sleep(LONGEST.min(Duration::from_millis(1 << (self.tries - AT_ONCE).min(5)))).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_become_longer_and_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut pauses = Pauses::new(Duration::from_millis(100));
            for _ in 0..AT_ONCE {
                assert!(pauses.next().await);
            }
            assert!(pauses.begin.elapsed() < LONGEST);
            let mut more = 0;
            while pauses.next().await {
                more += 1;
            }
            assert!((2..20).contains(&more), "{more}");
            assert!(pauses.begin.elapsed() >= pauses.patience);
        });
    }
}
