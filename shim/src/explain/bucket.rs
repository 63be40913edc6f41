//! How fast denied calls are answered.
//!
//! A call is received only when there is a token for it. The others wait in the kernel, where a signal ends them as it
//! ends any other call; one that was received and not answered would keep its container from being frozen.

use std::time::{Duration, Instant};

/// Calls a second for all containers of a pod. Each is about 15 µs of a processor where they come a few at a time, most of
/// it for the two processes that take turns.
const RATE: u32 = 1_000;

/// Calls that a container may make at once, after it has made none.
const BURST: u32 = 10_000;

/// How long a container without tokens waits, at least: more often is dearer, more seldom is felt.
const TICK: Duration = Duration::from_millis(20);

/// The tokens of one container.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { tokens: f64::from(BURST), filled: now }
    }

    /// Takes a token, or says how long there is none. Each of a pod's containers has an equal share of the rate: one that
    /// spams slows down nobody else.
    pub(super) fn take(&mut self, now: Instant, containers: usize) -> Result<(), Duration> {
        let share = f64::from(RATE) / containers.max(1) as f64;
        self.tokens += now.saturating_duration_since(self.filled).as_secs_f64() * share;
        self.tokens = self.tokens.min(f64::from(BURST));
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / share).max(TICK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gets_its_burst_and_then_its_share() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        for _ in 0..BURST {
            bucket.take(start, 2).unwrap();
        }
        assert_eq!(bucket.take(start, 2), Err(TICK));
        // Half of the rate.
        let taken =
            |bucket: &mut Bucket, now| std::iter::repeat_with(|| bucket.take(now, 2)).take_while(Result::is_ok).count();
        assert_eq!(taken(&mut bucket, start + TICK), 10);
        assert!((498..=500).contains(&taken(&mut bucket, start + TICK + Duration::from_secs(1))));
        // However long it rests, it gets no more than its burst; and a clock that stands still gives nothing.
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3600)), BURST as usize);
        assert_eq!(taken(&mut bucket, start), 0);
    }
}
