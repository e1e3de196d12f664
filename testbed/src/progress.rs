//! How a run goes, for people: a bar on a terminal, plain lines elsewhere.

use crate::trace::now_ns;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fmt,
    io::{IsTerminal, Write as _},
    sync::{Arc, Mutex},
};

/// Shows progress on standard error. Clones show the same.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Shown>>);

enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

struct Lines {
    begun_ns: u64,
    last_ns: u64,
}

/// Plain lines come at most this often, beside those that begin a phase.
const LINE_EVERY_NS: u64 = 5_000_000_000;

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.as_deref() {
            None => "Progress::Silent",
            Some(Shown::Bar(_)) => "Progress::Bar",
            Some(Shown::Lines(_)) => "Progress::Lines",
        })
    }
}

impl Progress {
    /// Shows nothing.
    pub fn silent() -> Progress {
        Progress::default()
    }

    /// A bar if standard error is a terminal, else lines.
    pub fn on_stderr() -> Progress {
        let shown = if std::io::stderr().is_terminal() {
            let style = "{spinner} {elapsed:>4} {prefix}  [{bar:30}] {pos}/{len} {msg}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(0).with_style(style.progress_chars("=> "));
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
            Shown::Bar(bar)
        } else {
            Shown::Lines(Mutex::new(Lines { begun_ns: now_ns(), last_ns: 0 }))
        };
        Progress(Some(Arc::new(shown)))
    }

    /// Whether nobody sees it.
    pub fn is_silent(&self) -> bool {
        self.0.is_none()
    }

    /// A phase begins.
    pub fn phase(&self, text: &str) {
        match self.0.as_deref() {
            None => {}
            Some(Shown::Bar(bar)) => {
                bar.set_prefix(text.to_owned());
                bar.set_message("");
                bar.set_length(0);
                bar.set_position(0);
            }
            Some(Shown::Lines(lines)) => lines.lock().expect("printing does not panic").print(text),
        }
    }

    /// So much of the phase is done.
    pub fn at(&self, done: u64, total: u64, text: &str) {
        match self.0.as_deref() {
            None => {}
            Some(Shown::Bar(bar)) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(text.to_owned());
            }
            Some(Shown::Lines(lines)) => {
                let mut lines = lines.lock().expect("printing does not panic");
                if now_ns() - lines.last_ns > LINE_EVERY_NS {
                    lines.print(&format!("  {done}/{total} {text}"));
                }
            }
        }
    }

    /// Something happened.
    pub fn note(&self, text: &str) {
        match self.0.as_deref() {
            None => {}
            Some(Shown::Bar(bar)) => bar.println(format!("  {text}")),
            Some(Shown::Lines(lines)) => lines.lock().expect("printing does not panic").print(&format!("  {text}")),
        }
    }

    /// Takes a bar off the terminal.
    pub fn finish(&self) {
        if let Some(Shown::Bar(bar)) = self.0.as_deref() {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    fn print(&mut self, text: &str) {
        self.last_ns = now_ns();
        let seconds = (self.last_ns - self.begun_ns) as f64 / 1e9;
        // Nobody may read it any more, which ends no run.
        let _ = writeln!(std::io::stderr(), "[{seconds:6.1} s] {text}");
    }
}
