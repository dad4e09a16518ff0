//! One line on a terminal that tells how far long work is; silent where stderr is not a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use crate::report::format;

/// Cells of the bar.
const CELLS: usize = 24;

/// A line that is written over until it ends.
pub struct Line {
    whole: Duration,
    shown: bool,
}

impl Line {
    /// A line for work that takes `whole`.
    pub fn stderr(whole: Duration) -> Self {
        Self { whole, shown: false }
    }

    /// Shows how much is done, and a few words.
    pub fn show(&mut self, done: Duration, words: &str) {
        if !io::stderr().is_terminal() {
            return;
        }
        self.shown = true;
        let share = (done.as_secs_f64() / self.whole.as_secs_f64()).clamp(0.0, 1.0);
        let full = (share * CELLS as f64).round() as usize;
        let bar: String = (0..CELLS).map(|cell| if cell < full { '█' } else { '░' }).collect();
        let (done, whole) =
            (format::duration(done.as_secs_f64()), format::duration(self.whole.as_secs_f64()));
        // A terminal that goes away in the middle is no reason to stop recording.
        let _ = write!(io::stderr(), "\r{bar} {done} of {whole}  {words}\u{1b}[K");
        let _ = io::stderr().flush();
    }

    /// Leaves the line.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = writeln!(io::stderr());
        }
    }
}
