//! A user's hyper-parameters, from the configuration file and the command line.

use std::collections::BTreeSet;
use std::path::Path;

use cilbench::config::{Layer, parse_setting, read_file};
use cilbench::toml::{Table, Value};
use cilbench::{Error, Result};

use crate::args::SettingArgs;
use crate::paths::require_exists;
use crate::plugins::has_library_name;

/// The user's settings, and the plugins that the configuration file names.
pub(crate) struct Settings {
    /// The file, then `--set`, then the flags that stand for a key; later layers win.
    pub layers: Vec<Layer>,
    /// As `--plugin` would name them.
    pub plugins: Vec<String>,
}

impl Settings {
    /// Reads the file and the flags.
    pub(crate) fn read(args: &SettingArgs) -> Result<Self> {
        let mut settings = Self { layers: Vec::new(), plugins: Vec::new() };
        if let Some(path) = &args.config {
            require_exists("--config", path)?;
            let mut table = read_file(path)?;
            settings.plugins = take_plugins(path, &mut table)?;
            settings.layers.push(Layer { origin: path.display().to_string(), table });
        }
        let (singles, keys) = single_settings(&args.set)?;
        settings.layers.extend(singles);
        for (flag, key, value) in
            [("--epochs", "epochs", args.epochs), ("--batch-size", "batch_size", args.batch_size)]
        {
            let Some(value) = value else { continue };
            if keys.contains(key) {
                return Err(Error::usage(format!(
                    "{flag} {value}: there is a --set for {key} too; leave one out"
                )));
            }
            settings.layers.push(layer(flag, key.to_owned(), Value::Integer(value)));
        }
        Ok(settings)
    }
}

/// One layer for each `--set key=value`, and the keys. A key that is set twice is an error.
pub(crate) fn single_settings(set: &[String]) -> Result<(Vec<Layer>, BTreeSet<String>)> {
    let (mut layers, mut keys) = (Vec::new(), BTreeSet::new());
    for setting in set {
        let (key, value) = parse_setting(setting)?;
        if !keys.insert(key.clone()) {
            return Err(Error::usage(format!(
                "--set {setting}: there is another --set for {key}; leave one out"
            )));
        }
        layers.push(layer("--set", key, value));
    }
    Ok((layers, keys))
}

fn layer(origin: &str, key: String, value: Value) -> Layer {
    Layer { origin: origin.into(), table: Table::from_iter([(key, value)]) }
}

/// Takes `plugins = […]` out of a configuration file's table. A library's path is relative to the
/// file.
fn take_plugins(file: &Path, table: &mut Table) -> Result<Vec<String>> {
    let bad = || {
        Error::usage(format!(
            "{}: plugins: expected a list of texts, as in plugins = [\"my_method.so\"]",
            file.display()
        ))
    };
    let list = match table.remove("plugins") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(bad()),
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let name = |value: &Value| {
        let name = value.as_str().ok_or_else(bad)?;
        let beside = folder.join(name);
        let is_file = has_library_name(Path::new(name)) || beside.is_file();
        Ok(if is_file { beside.display().to_string() } else { name.to_owned() })
    };
    list.iter().map(name).collect()
}
