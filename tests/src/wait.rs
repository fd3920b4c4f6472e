//! Waiting for a condition, never for time to pass.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A limit for what should be there at once, generous enough for a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// The variable that says how many times as long is waited: an emulated machine is slow.
const PATIENCE: &str = "NSNTRACE_TESTS_PATIENCE";

/// Asks `ready` again and again until it has an answer.
///
/// Fails with `what` if there is none within `limit`, longer where that is told to be slow, or at once with an error of
/// `ready`.
pub fn until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let times = std::env::var(PATIENCE).ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let (began, limit) = (Instant::now(), limit * times);
    loop {
        if let Some(answer) = ready()? {
            return Ok(answer);
        }
        if began.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
