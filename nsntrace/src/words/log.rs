//! What the libraries and the kernel side say.

use log::{Level, LevelFilter, Metadata, Record};

use super::say;

/// Messages of the libraries and of the kernel side, for the curious.
#[derive(Debug)]
pub struct Log;

impl Log {
    /// Makes it the process's log.
    pub fn install() {
        // It fails where there is a log already, which then does.
        if ::log::set_logger(&Log).is_ok() {
            ::log::set_max_level(LevelFilter::Debug);
        }
    }
}

impl ::log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_own = metadata.target().starts_with("nsntrace");
        metadata.level() <= if is_own { Level::Debug } else { Level::Warn }
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            say!("nsntrace: {}", record.args());
        }
    }

    fn flush(&self) {}
}
