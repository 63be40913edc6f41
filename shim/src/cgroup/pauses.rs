//! Pauses between tries.

use std::time::{Duration, Instant};

/// How often it is tried again without a pause. A process that has been waited for leaves its cgroup only when it has
/// been switched away from for the last time (Linux 6.18, kernel/cgroup/cgroup.c, `cgroup_task_dead`): microseconds later.
const AT_ONCE: u32 = 20;

const LONGEST: Duration = Duration::from_millis(10);

/// Pauses that become longer, up to an end.
#[derive(Debug)]
pub(super) struct Pauses {
    begin: Instant,
    patience: Duration,
    tries: u32,
}

impl Pauses {
    /// For something that may take so long.
    pub(super) fn new(patience: Duration) -> Self {
        Self { begin: Instant::now(), patience, tries: 0 }
    }

    /// Pauses before one more try; `false` without a pause if it has taken too long.
    pub(super) async fn next(&mut self) -> bool {
        if self.begin.elapsed() >= self.patience {
            return false;
        }
        self.tries += 1;
        match self.tries.checked_sub(AT_ONCE) {
            None | Some(0) => tokio::task::yield_now().await,
            Some(more) => tokio::time::sleep(LONGEST.min(Duration::from_millis(1 << more.min(5)))).await,
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
