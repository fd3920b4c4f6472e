//! Processors that do not sleep.

use std::{fs::File, io::Write};

use anyhow::{Context, Result};

/// The longest that a processor may take to wake up, in microseconds, as long as the file is open: see pm_qos_interface in the
/// kernel's documentation.
const LATENCY: &str = "/dev/cpu_dma_latency";

/// While it is there, a processor with nothing to do waits for work without going to sleep. How long waking one takes is the
/// machine's matter, on a virtual one that of its host, and where two processes wait for each other it decides how fast they are.
pub struct Awake(#[expect(dead_code, reason = "open it counts")] File);

impl Awake {
    /// From here on.
    pub fn begin() -> Result<Self> {
        let open = || {
            let mut file = File::options().write(true).open(LATENCY)?;
            file.write_all(&0_i32.to_ne_bytes())?;
            Ok::<_, std::io::Error>(file)
        };
        open().map(Self).with_context(|| format!("cannot keep the processors awake by {LATENCY}"))
    }
}
