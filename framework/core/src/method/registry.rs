//! The registry of methods: those linked into this program, and those that plugins bring while it
//! runs.

use std::marker::PhantomData;

use toml::Table;

use super::{About, Local, Method, Player, Plugin, Setup};
use crate::backbone::BackboneSource;
use crate::config::{self, Field, Layer};
use crate::registry::{Named, Registry};
use crate::{Error, Result};

/// What an entry knows of its hyper-parameters, and how it builds its method.
pub trait Recipe: Send + Sync {
    /// Its hyper-parameters.
    fn fields(&self) -> Vec<Field>;

    /// The defaults with `layers` on top, the later ones winning.
    ///
    /// # Errors
    /// [`Error::Usage`] for unknown keys or bad values.
    fn merge(&self, layers: &[Layer]) -> Result<Table>;

    /// Builds the method from a merged configuration. `source` says how its backbone can be built
    /// again, elsewhere.
    ///
    /// # Errors
    /// As [`Method::new`].
    fn build(
        &self,
        config: &Table,
        setup: Setup,
        source: Option<&BackboneSource>,
    ) -> Result<Box<dyn Player>>;
}

/// Where a method comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Linked into this program.
    BuiltIn {
        /// The name of its type, which begins with its crate.
        type_name: fn() -> &'static str,
    },
    /// Brought by a plugin.
    Plugin {
        /// The plugin.
        plugin: Plugin,
        /// The path of its file, or its command, as the user gave it.
        place: String,
    },
}

impl Origin {
    /// The plugin, if it is one.
    pub fn plugin(&self) -> Option<&Plugin> {
        match self {
            Self::BuiltIn { .. } => None,
            Self::Plugin { plugin, .. } => Some(plugin),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BuiltIn { type_name } => {
                write!(f, "built in (crate {})", type_name().split("::").next().unwrap_or_default())
            }
            Self::Plugin { plugin, place } => write!(f, "{plugin} from {place}"),
        }
    }
}

/// The registry entry of a method.
#[derive(Clone)]
pub struct MethodEntry {
    /// What is known of it.
    pub about: About,
    /// Where it comes from.
    pub origin: Origin,
    recipe: &'static dyn Recipe,
}

inventory::collect!(MethodEntry);

/// The recipe of a method of this program.
struct Typed<M>(PhantomData<fn() -> M>);

impl<M: Method> Recipe for Typed<M> {
    fn fields(&self) -> Vec<Field> {
        config::fields::<M::Config>()
    }

    fn merge(&self, layers: &[Layer]) -> Result<Table> {
        Ok(config::merge::<M::Config>(M::ABOUT.name, layers)?.1)
    }

    fn build(
        &self,
        config: &Table,
        setup: Setup,
        _: Option<&BackboneSource>,
    ) -> Result<Box<dyn Player>> {
        let layer = Layer { origin: "configuration".into(), table: config.clone() };
        let (config, _) = config::merge::<M::Config>(M::ABOUT.name, &[layer])?;
        let placement = setup.placement.clone();
        Ok(Box::new(Local::new(M::new(config, setup)?, placement)))
    }
}

impl MethodEntry {
    /// The entry of `M`.
    pub const fn of<M: Method>() -> Self {
        Self {
            about: M::ABOUT,
            origin: Origin::BuiltIn { type_name: std::any::type_name::<M> },
            recipe: &Typed::<M>(PhantomData),
        }
    }

    /// The entry of a method that a plugin brings; what it needs is kept for good.
    pub fn loaded(
        about: About,
        plugin: Plugin,
        place: impl Into<String>,
        recipe: Box<dyn Recipe>,
    ) -> Self {
        Self {
            about,
            origin: Origin::Plugin { plugin, place: place.into() },
            recipe: Box::leak(recipe),
        }
    }

    /// Its hyper-parameters.
    pub fn fields(&self) -> Vec<Field> {
        self.recipe.fields()
    }

    /// The settings that differ from the defaults on some data sets, by data set; those of
    /// [`MethodEntry::configure`].
    pub fn presets(&self) -> Vec<(String, Table)> {
        let presets: Table = toml::from_str(self.about.presets).unwrap_or_default();
        let table = |(name, value)| {
            if let toml::Value::Table(table) = value { Some((name, table)) } else { None }
        };
        presets.into_iter().filter_map(table).collect()
    }

    /// The configuration for a data set: defaults, then the preset, then `layers`.
    ///
    /// # Errors
    /// [`Error::Usage`] for unknown keys or bad values.
    pub fn configure(&self, dataset: &str, layers: &[Layer]) -> Result<Table> {
        let mut all = Vec::new();
        let presets: Table = toml::from_str(self.about.presets).map_err(|e| {
            Error::Protocol(format!(
                "the presets of method '{}' are not valid TOML: {e}",
                self.about.name
            ))
        })?;
        if let Some(toml::Value::Table(table)) = presets.get(dataset) {
            all.push(Layer {
                origin: format!("preset of {} for {dataset}", self.about.name),
                table: table.clone(),
            });
        }
        all.extend_from_slice(layers);
        layers.iter().try_for_each(|layer| self.refuse_foreign(layer))?;
        self.recipe.merge(&all)
    }

    /// Refuses a key of another method, and says whose it is.
    fn refuse_foreign(&self, layer: &Layer) -> Result<()> {
        let has = |entry: &Self, key: &str| entry.fields().iter().any(|f| f.key == key);
        for key in layer.table.keys().filter(|key| !has(self, key)) {
            let owners: Vec<&str> =
                all().into_iter().filter(|e| has(e, key)).map(|e| e.about.name).collect();
            if !owners.is_empty() {
                let (origin, name) = (&layer.origin, self.about.name);
                let owners = owners.join(", ");
                return Err(Error::usage(format!(
                    "{origin}: {name}: unknown key '{key}': it belongs to {owners}; `cilbench describe {name}` lists those of {name}"
                )));
            }
        }
        Ok(())
    }

    /// Builds the method.
    ///
    /// # Errors
    /// As [`Method::new`].
    pub fn build(&self, config: &Table, setup: Setup) -> Result<Box<dyn Player>> {
        self.build_on(config, setup, None)
    }

    /// Builds the method on a backbone that came from `source`: a plugin builds its own from there.
    ///
    /// # Errors
    /// As [`Method::new`].
    pub fn build_on(
        &self,
        config: &Table,
        setup: Setup,
        source: Option<&BackboneSource>,
    ) -> Result<Box<dyn Player>> {
        self.recipe.build(config, setup, source)
    }
}

static METHODS: Registry<MethodEntry> = Registry::new("method");

impl Named for MethodEntry {
    fn name(&self) -> &str {
        self.about.name
    }
}

/// Adds a method to those of this process, for good.
///
/// # Errors
/// [`Error::Usage`] if its name is no name for a method, or taken: says by whom.
pub fn register(entry: MethodEntry) -> Result<&'static MethodEntry> {
    let (name, origin) = (entry.about.name, entry.origin.clone());
    if name.is_empty()
        || name.contains(|c: char| c.is_whitespace() || c.is_control() || "/\\".contains(c))
    {
        let text =
            format!("{origin}: '{name}' is no name for a method: use letters, digits and hyphens");
        return Err(Error::usage(text));
    }
    METHODS.add(entry).map_err(|other| {
        let place = match &origin {
            Origin::Plugin { place, .. } => place.clone(),
            built_in => built_in.to_string(),
        };
        let taken_by = &other.origin;
        Error::usage(format!("{place}: the method name '{name}' is taken: it is {taken_by}; rename the plugin's method"))
    })
}

/// All registered methods, by name.
pub fn all() -> Vec<&'static MethodEntry> {
    METHODS.all()
}

/// The method of this name.
///
/// # Errors
/// [`Error::Usage`] with the nearest known name; also if two methods took the same name.
pub fn find(name: &str) -> Result<&'static MethodEntry> {
    let known = all().iter().any(|entry| entry.about.name == name);
    METHODS.find(name).map_err(|error| match error {
        Error::Usage(text) if !known => Error::Usage(format!(
            "{text}; one of a plugin needs --plugin with its library or command"
        )),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::PluginKind;

    struct Nothing;

    impl Recipe for Nothing {
        fn fields(&self) -> Vec<Field> {
            Vec::new()
        }
        fn merge(&self, _: &[Layer]) -> Result<Table> {
            Ok(Table::new())
        }
        fn build(
            &self,
            _: &Table,
            _: Setup,
            _: Option<&BackboneSource>,
        ) -> Result<Box<dyn Player>> {
            Err(Error::Unsupported("nothing to build".into()))
        }
    }

    fn entry(name: &'static str, place: &str) -> MethodEntry {
        let about = About { name, ..About::DEFAULT };
        let plugin = Plugin {
            kind: PluginKind::Binary,
            name: "some".into(),
            version: "0.1".into(),
            protocol: 1,
            sha256: "ab".repeat(32),
        };
        MethodEntry::loaded(about, plugin, place, Box::new(Nothing))
    }

    #[test]
    fn a_method_is_found_once_registered_and_its_name_is_taken_from_then_on() {
        assert!(find("from-a-plugin").is_err());
        register(entry("from-a-plugin", "first.so")).expect("free");
        assert_eq!(find("from-a-plugin").expect("there").fields(), []);
        assert_eq!(all().iter().filter(|e| e.about.name == "from-a-plugin").count(), 1);
        let text = register(entry("from-a-plugin", "second.so")).err().expect("taken").to_string();
        assert!(
            text.contains("second.so: the method name 'from-a-plugin' is taken")
                && text.contains("from first.so"),
            "{text}"
        );
        for bad in ["", "two words", "a/b", "a\n"] {
            assert!(
                register(entry(bad, "third.so"))
                    .err()
                    .expect("bad")
                    .to_string()
                    .contains("is no name"),
                "{bad:?}"
            );
        }
    }
}
