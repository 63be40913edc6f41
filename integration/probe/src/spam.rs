//! Denied calls, as many as there can be.

use std::time::{Duration, Instant};

/// `spam THREADS MILLISECONDS`: that many threads, or 1, make a call that every sandbox denies; prints how often all of
/// them did.
pub(crate) fn run(arguments: &[String]) {
    let number = |at: usize, otherwise: u64| arguments.get(at).and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    let (threads, end) = (number(0, 1), Instant::now() + Duration::from_millis(number(1, 1000)));
    let spam = move || {
        let mut calls = 0u64;
        while Instant::now() < end {
            // SAFETY: takes a number only; where it is not denied, this process has a namespace of its own.
            unsafe { libc::unshare(libc::CLONE_NEWUTS) };
            calls += 1;
        }
        calls
    };
    let threads: Vec<_> = (0..threads).map(|_| std::thread::spawn(spam)).collect();
    let calls: u64 = threads.into_iter().filter_map(|thread| thread.join().ok()).sum();
    println!("{calls}");
}
