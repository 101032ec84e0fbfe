//! Hyper-parameters: documented defaults < preset of the data set < the user's file < `--set`, with
//! unknown keys refused.
//!
//! A configuration is an ordinary serde struct that derives [`schemars::JsonSchema`]: the doc
//! comments of its fields are what `cilbench describe` prints. Parts shared between methods may be
//! `#[serde(flatten)]`ed in; unknown keys are checked here against the schema, because serde's
//! `deny_unknown_fields` does not work together with `flatten`.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::{Error, Result};

/// What a configuration struct must be: all of it by derives, `Default` holding the documented
/// defaults.
pub trait Parameters: Default + Serialize + DeserializeOwned + JsonSchema {}
impl<T: Default + Serialize + DeserializeOwned + JsonSchema> Parameters for T {}

/// One hyper-parameter, for `cilbench describe` and for checking keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The key in files and in `--set key=value`.
    pub key: String,
    /// The built-in default, as TOML.
    pub default: Value,
    /// What it means: the field's doc comment.
    pub doc: String,
}

/// The hyper-parameters of `C`, in the order of their keys.
pub fn fields<C: Parameters>() -> Vec<Field> {
    let defaults = to_table(&C::default());
    let schema = serde_json::to_value(schemars::schema_for!(C)).unwrap_or_default();
    let doc = |key: &str| {
        let text = schema["properties"][key]["description"].as_str().unwrap_or_default();
        let mut text = text.replace('\n', " ");
        if let Some(choices) = choices(&schema, key) {
            text = format!("{text} One of: {}.", choices.join(", "));
        }
        text
    };
    defaults.into_iter().map(|(key, default)| Field { doc: doc(&key), key, default }).collect()
}

/// The names a key may take, if its type is an enumeration of names.
fn choices(schema: &serde_json::Value, key: &str) -> Option<Vec<String>> {
    let property = &schema["properties"][key];
    let name = property["$ref"]
        .as_str()
        .or_else(|| property["allOf"][0]["$ref"].as_str())?
        .strip_prefix("#/$defs/")?;
    let definition = &schema["$defs"][name];
    let name = |v: &serde_json::Value| v["const"].as_str().map(str::to_owned);
    if let Some(list) = definition["enum"].as_array() {
        return Some(list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect());
    }
    definition["oneOf"].as_array().map(|list| {
        let enums = |v: &serde_json::Value| {
            v["enum"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        list.iter().flat_map(|v| name(v).map(|n| vec![n]).unwrap_or_else(|| enums(v))).collect()
    })
}

fn to_table<C: Serialize>(config: &C) -> Table {
    Table::try_from(config).unwrap_or_default()
}

/// A layer of settings on top of the defaults, and where it comes from, for messages.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Where the settings come from: `preset for cifar100`, `my.toml`, `--set`.
    pub origin: String,
    /// The settings themselves.
    pub table: Table,
}

/// Lays `layers` over the defaults of `C`, the later ones winning.
///
/// # Errors
/// [`Error::Usage`] for an unknown key (with the nearest known one) or a value of the wrong type,
/// with the layer's origin.
pub fn merge<C: Parameters>(owner: &str, layers: &[Layer]) -> Result<(C, Table)> {
    let mut table = to_table(&C::default());
    let known = fields::<C>();
    for layer in layers {
        for (key, value) in &layer.table {
            let (field, value) = known_value(owner, layer, &known, key, value)?;
            let mut alone = to_table(&C::default());
            alone.insert(key.clone(), value.clone());
            if let Err(error) = alone.try_into::<C>() {
                let problem = error.to_string().lines().next().unwrap_or_default().to_owned();
                let example = &field.default;
                return Err(Error::usage(format!(
                    "{}: {owner}: {key} = {value}: {} ({}), as in {key} = {example}",
                    layer.origin,
                    plain(&problem),
                    field.doc
                )));
            }
            table.insert(key.clone(), value);
        }
    }
    let config =
        table.clone().try_into::<C>().map_err(|e| Error::usage(format!("{owner}: {e}")))?;
    Ok((config, table))
}

/// Types' names as a user of TOML knows them.
fn plain(problem: &str) -> String {
    let names = [
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected f64", "expected a number"),
        ("a sequence", "a list"),
        ("a boolean", "true or false"),
    ];
    names.iter().fold(problem.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The field of a key, and its value, an integer made a float where a float is wanted.
fn known_value<'a>(
    owner: &str,
    layer: &Layer,
    known: &'a [Field],
    key: &str,
    value: &Value,
) -> Result<(&'a Field, Value)> {
    let Some(field) = known.iter().find(|f| f.key == *key) else {
        let Error::Usage(text) = Error::unknown("key", key, known.iter().map(|f| f.key.as_str()))
        else {
            unreachable!()
        };
        return Err(Error::usage(format!("{}: {owner}: {text}", layer.origin)));
    };
    let value = match (&field.default, value) {
        (Value::Float(_), Value::Integer(i)) => Value::Float(*i as f64),
        _ => value.clone(),
    };
    Ok((field, value))
}

/// Lays `layers` over the defaults of fields whose type this program does not know: a plugin's. A
/// value must be of its default's kind; the plugin checks the rest.
///
/// # Errors
/// As [`merge`].
pub fn merge_fields(owner: &str, known: &[Field], layers: &[Layer]) -> Result<Table> {
    let mut table: Table = known.iter().map(|f| (f.key.clone(), f.default.clone())).collect();
    for layer in layers {
        for (key, value) in &layer.table {
            let (field, value) = known_value(owner, layer, known, key, value)?;
            if !field.default.same_type(&value) {
                let expected = field.default.type_str();
                return Err(Error::usage(format!(
                    "{}: {owner}: {key} = {value}: expected {expected} ({})",
                    layer.origin, field.doc
                )));
            }
            table.insert(key.clone(), value);
        }
    }
    Ok(table)
}

/// Fields as JSON: `[{"key": …, "default": …, "doc": …}, …]`.
pub fn fields_to_json(fields: &[Field]) -> String {
    let one = |f: &Field| serde_json::json!({ "key": f.key, "default": f.default, "doc": f.doc });
    serde_json::Value::Array(fields.iter().map(one).collect()).to_string()
}

/// Fields from JSON; an empty text stands for none.
///
/// # Errors
/// Says what is wrong with it.
pub fn fields_from_json(text: &str) -> Result<Vec<Field>, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Plain {
        key: String,
        default: serde_json::Value,
        #[serde(default)]
        doc: String,
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let plain: Vec<Plain> = serde_json::from_str(text)
        .map_err(|e| format!(r#"expected [{{"key": …, "default": …, "doc": …}}, …], but {e}"#))?;
    let field = |f: Plain| {
        let default = Value::try_from(&f.default).map_err(|e| {
            format!("the default of {}, {}, has no form in TOML: {e}", f.key, f.default)
        })?;
        Ok(Field { key: f.key, default, doc: f.doc })
    };
    plain.into_iter().map(field).collect()
}

/// A configuration from a JSON object.
///
/// # Errors
/// Says what is wrong with it.
pub fn table_from_json(text: &str) -> Result<Table, String> {
    serde_json::from_str::<Table>(text)
        .map_err(|e| format!("not a JSON object with a form in TOML: {e}"))
}

/// Parses one `--set key=value`; a value that is not TOML is taken as a string, so that `--set
/// alignment=none` works.
///
/// # Errors
/// [`Error::Usage`] if there is no `=`.
pub fn parse_setting(text: &str) -> Result<(String, Value)> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::usage(format!("--set {text}: expected key=value, as in --set learning_rate=0.001"))
    })?;
    let parsed = toml::from_str::<Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut t| t.remove("value"));
    Ok((key.trim().to_owned(), parsed.unwrap_or_else(|| Value::String(value.trim().to_owned()))))
}

/// Reads a TOML file of settings.
///
/// # Errors
/// Names the file, and line and column of a syntax error.
pub fn read_file(path: &std::path::Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    toml::from_str(&text).map_err(|e| Error::usage(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
    #[serde(default)]
    struct Shared {
        /// Passes over the data.
        epochs: usize,
    }
    impl Default for Shared {
        fn default() -> Self {
            Self { epochs: 20 }
        }
    }
    #[derive(Debug, Default, PartialEq, Clone, Copy, Serialize, serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        #[default]
        First,
        LastOne,
    }
    #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
    #[serde(default)]
    struct Config {
        #[serde(flatten)]
        shared: Shared,
        /// Which kind.
        kind: Kind,
        /// A weight.
        weight: f64,
    }

    fn layer(text: &str) -> Layer {
        Layer { origin: "my.toml".into(), table: toml::from_str(text).expect("toml") }
    }

    #[test]
    fn later_layers_win_and_flattened_keys_are_known() {
        let (config, _) = merge::<Config>(
            "test",
            &[layer("epochs = 3\nkind = 'last-one'"), layer("epochs = 4\nweight = 2")],
        )
        .expect("valid");
        assert_eq!(
            config,
            Config { shared: Shared { epochs: 4 }, kind: Kind::LastOne, weight: 2.0 }
        );
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        let text =
            |t| merge::<Config>("test", &[layer(t)]).expect_err("must be refused").to_string();
        assert!(
            text("epoch = 3")
                .contains("my.toml: test: unknown key 'epoch': did you mean 'epochs'?"),
            "{}",
            text("epoch = 3")
        );
        assert!(text("epochs = 'x'").contains("epochs = \"x\""), "{}", text("epochs = 'x'"));
        assert!(text("kind = 'second'").contains("last-one"), "{}", text("kind = 'second'"));
    }

    #[test]
    fn a_plugin_s_fields_cross_as_json_and_are_checked_by_the_kind_of_their_defaults() {
        let known = fields_from_json(&fields_to_json(&fields::<Config>())).expect("JSON");
        assert_eq!(known, fields::<Config>());
        let table =
            merge_fields("test", &known, &[layer("weight = 2\nepochs = 3")]).expect("valid");
        assert_eq!(
            table,
            merge::<Config>("test", &[layer("weight = 2\nepochs = 3")]).expect("valid").1
        );
        assert_eq!(
            table_from_json(&serde_json::to_string(&table).expect("JSON")).expect("TOML"),
            table
        );
        let text =
            |t| merge_fields("test", &known, &[layer(t)]).expect_err("must be refused").to_string();
        assert!(text("epoch = 3").contains("did you mean 'epochs'?"));
        assert!(
            text("epochs = 'x'").contains(
                "my.toml: test: epochs = \"x\": expected integer (Passes over the data.)"
            )
        );
        assert!(fields_from_json("{}").expect_err("no list").contains("expected [{"));
        assert!(
            fields_from_json(r#"[{"key": "a", "default": null}]"#)
                .expect_err("null")
                .contains("default of a")
        );
    }

    #[test]
    fn fields_carry_docs_defaults_and_choices() {
        let all = fields::<Config>();
        let kind = all.iter().find(|f| f.key == "kind").expect("kind");
        assert_eq!(kind.default, Value::String("first".into()));
        assert_eq!(kind.doc, "Which kind. One of: first, last-one.");
        assert_eq!(
            all.iter().find(|f| f.key == "epochs").expect("epochs").doc,
            "Passes over the data."
        );
    }
}
