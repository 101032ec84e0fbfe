//! The weights file from which a plugin builds the run's backbone.

use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::backbone::{Backbone, BackboneSource};
use crate::{Error, Result};

/// A weights file: the user's own, or one written for the plugin, which goes away with this.
pub(super) enum WeightsPath {
    Named(PathBuf),
    Written(TempPath),
}

impl WeightsPath {
    /// The absolute path as text.
    pub(super) fn text(&self) -> Result<String> {
        let path: &Path = match self {
            Self::Named(path) => path,
            Self::Written(path) => path,
        };
        let path = std::path::absolute(path).map_err(Error::io(path))?;
        let text = path
            .to_str()
            .ok_or_else(|| Error::file(&path, "a plugin needs a path that is UTF-8: rename it"))?;
        Ok(text.to_owned())
    }
}

/// The registry entry and the weights file from which a plugin can build this backbone. A backbone
/// without a file of the user's is written to one.
pub(super) fn file(
    backbone: &dyn Backbone,
    source: Option<&BackboneSource>,
) -> Result<(String, Option<WeightsPath>)> {
    if let Some((source, path)) = source.and_then(|s| s.options.weights.as_ref().map(|p| (s, p))) {
        return Ok((source.entry.clone(), Some(WeightsPath::Named(path.clone()))));
    }
    let model = match backbone.export() {
        Ok(model) => model,
        // A backbone of a kind of its own: a plugin that knows it can build it by name.
        Err(Error::Unsupported(_)) => {
            return Ok((
                source.map_or_else(|| backbone.info().name.clone(), |s| s.entry.clone()),
                None,
            ));
        }
        Err(error) => return Err(error),
    };
    let named = tempfile::Builder::new().prefix("cilbench-").suffix(".safetensors").tempfile();
    let place = std::env::temp_dir();
    let path = named.map_err(Error::io(&place))?.into_temp_path();
    let tensors = model
        .tensors
        .iter()
        .map(|(name, t)| Ok((name.as_str(), t.contiguous()?)))
        .collect::<Result<Vec<_>>>()?;
    safetensors::serialize_to_file(tensors, Some(model.metadata.into_iter().collect()), &path)
        .map_err(|e| {
            Error::file(
                &path,
                format!("the backbone's weights cannot be written for the plugin: {e}"),
            )
        })?;
    Ok(("vit".to_owned(), Some(WeightsPath::Written(path))))
}
