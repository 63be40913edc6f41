//! The shim's log: containerd reads the fifo `log` in the bundle.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use log::{LevelFilter, Log, Metadata, Record};

struct Fifo(File);

impl Log for Fifo {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak only when something is wrong.
        metadata.target().starts_with("containerd_shim_hardened") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line =
                format!("level={} msg={:?}\n", record.level().as_str().to_lowercase(), record.args().to_string());
            // A log that nobody reads, or reads too slowly, must not hold a container up.
            drop((&self.0).write(line.as_bytes()));
        }
    }

    fn flush(&self) {}
}

/// Opens the log, if there is one: a shim without a log is still a shim.
pub(crate) fn init(debug: bool) {
    let fifo = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("log");
    if let Ok(file) = fifo
        && log::set_boxed_logger(Box::new(Fifo(file))).is_ok()
    {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    }
}
