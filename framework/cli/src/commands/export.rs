//! `cilbench export`: writes a finished run's model as one safetensors file.

use std::collections::HashMap;
use std::path::PathBuf;

use cilbench::{Error, Result};

use super::Execute;
use crate::args::{FinishedArgs, GlobalArgs};
use crate::command_file;
use crate::finished::FinishedRun;
use crate::plugins::PluginPolicy;
use crate::prepare::Prepared;

#[derive(clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    finished: FinishedArgs,
    /// The file to write
    #[arg(long, default_value = "model.safetensors", value_name = "FILE")]
    out: PathBuf,
}

impl Execute for Export {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::of_run(&command_file::read(&self.finished.run)?))
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        let run = FinishedRun::open(&self.finished)?;
        let (player, tasks) = run.model(&Prepared::new(&run.experiment)?)?;
        let exported = player.export()?;
        let failed =
            |e: &dyn std::fmt::Display| Error::file(&self.out, format!("cannot be written: {e}"));
        let classes: Vec<String> = tasks.iter().flat_map(|t| t.info.class_names.clone()).collect();
        let mut metadata: HashMap<String, String> = exported.metadata.into_iter().collect();
        metadata.insert("classes".into(), serde_json::to_string(&classes).map_err(|e| failed(&e))?);
        metadata.insert("cilbench_run".into(), run.record.seal.clone());
        let contiguous =
            exported.tensors.iter().map(|(name, tensor)| Ok((name.as_str(), tensor.contiguous()?)));
        let tensors = contiguous.collect::<Result<Vec<_>>>()?;
        let count = tensors.len();
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| failed(&e))?;
        std::fs::write(&self.out, bytes).map_err(Error::io(&self.out))?;
        println!(
            "{count} tensors, {} classes in the head, written to {}",
            classes.len(),
            self.out.display()
        );
        Ok(())
    }
}
