//! One line on a terminal that tells how far long work is; silent where stderr is not a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for work of so many pieces. `words` stand behind it: `{pos}`, `{len}`, `{eta}`, `{msg}`.
pub fn bar(work: u64, words: &str) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(&format!(" {{bar:40}} {words}"))
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(work), target).with_style(style.progress_chars("━╸─"))
}
