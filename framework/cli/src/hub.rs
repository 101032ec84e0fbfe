//! The hub that the environment names, with a progress bar.

use std::sync::{Arc, Mutex};

use cilbench::hub::Hub;
use indicatif::{ProgressBar, ProgressStyle};

/// The hub that the environment names. It shows what it downloads.
pub(crate) fn hub() -> Hub {
    let bar: Mutex<Option<(String, ProgressBar)>> = Mutex::new(None);
    Hub::from_env().watched(Arc::new(move |file, done, all| {
        let mut bar = bar.lock().unwrap_or_else(|e| e.into_inner());
        if bar.as_ref().is_none_or(|(name, _)| name != file) {
            let new = ProgressBar::new(all);
            let style = ProgressStyle::with_template(
                "  {msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec} (left {eta})",
            );
            new.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            new.set_message(file.to_owned());
            *bar = Some((file.to_owned(), new));
        }
        if let Some((_, bar)) = bar.as_ref() {
            bar.set_position(done);
            if done == all {
                bar.finish_and_clear();
                eprintln!("  downloaded {file}, {:.1} MB", all as f64 / 1e6);
            }
        }
    }))
}
