//! `cilbench data fetch`: downloads a data set from the hub.

use cilbench::hub::Repository;
use cilbench::{Error, Result, data};

use crate::args::GlobalArgs;
use crate::commands::Execute;
use crate::hub::hub;

#[derive(clap::Args)]
pub(crate) struct Fetch {
    /// The data set: see `cilbench list datasets`
    dataset: String,
}

impl Execute for Fetch {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        fetch(&self.dataset)
    }
}

fn fetch(name: &str) -> Result<()> {
    let entry = data::find(name)?;
    let Some(source) = entry.hub else {
        return Err(match entry.files {
            "" => Error::usage(format!(
                "data set {name} is embedded in this program: there is nothing to download"
            )),
            files => Error::Unsupported(format!(
                "data set {name} is not on the hub in the form that is needed here; get it yourself. It needs {files}"
            )),
        });
    };
    let found = hub().files(&Repository::dataset(source.repo), source.files)?;
    println!("{name} is {} at commit {}, in {}", source.repo, found.commit, found.path.display());
    println!("It is found there without --data-root.");
    Ok(())
}
