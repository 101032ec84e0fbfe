//! The hub as the command uses it: from the environment, with a progress bar; and `cilbench data fetch`.

use std::sync::{Arc, Mutex};

use cilbench::hub::{Hub, Repository};
use cilbench::{Error, Result, data};
use indicatif::{ProgressBar, ProgressStyle};

/// The hub of the environment, showing what it downloads.
pub(crate) fn hub() -> Hub {
    let bar: Mutex<Option<(String, ProgressBar)>> = Mutex::new(None);
    Hub::from_env().watched(Arc::new(move |file, done, all| {
        let mut bar = bar.lock().unwrap_or_else(|e| e.into_inner());
        if bar.as_ref().is_none_or(|(name, _)| name != file) {
            let new = ProgressBar::new(all);
            let style = ProgressStyle::with_template("  {msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec} (left {eta})");
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

pub(crate) fn fetch(name: &str) -> Result<()> {
    let entry = data::find(name)?;
    let Some(source) = entry.hub else {
        return Err(match entry.files {
            "" => Error::usage(format!("data set {name} is embedded in this program: there is nothing to download")),
            files => {
                Error::Unsupported(format!("data set {name} is not on the hub as it is needed here; get it yourself. It needs {files}"))
            }
        });
    };
    let found = hub().files(&Repository::dataset(source.repo), source.files)?;
    println!("{name} is {} at commit {}, in {}", source.repo, found.commit, found.path.display());
    println!("It is found there without --data-root.");
    Ok(())
}
