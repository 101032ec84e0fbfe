//! `cilbench plugin new`: writes a crate for a method of the user's own. The method is the
//! workspace's `plugins/my-method` under another name.

use std::path::PathBuf;

use cilbench::{Error, Result, method};

use crate::args::GlobalArgs;
use crate::commands::Execute;
use crate::plugins::PluginPolicy;

#[derive(clap::Args)]
pub(crate) struct New {
    /// The method's name, as in my-method
    name: String,
    /// The folder to make [default: the name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A dynamic library for `--plugin`, instead of a program with the method in it
    #[arg(long)]
    binary: bool,
    /// Depend on the cilbench in this folder (its repository)
    #[arg(long, value_name = "DIR", conflicts_with = "git")]
    path: Option<PathBuf>,
    /// Depend on the cilbench in this git repository
    #[arg(long, value_name = "URL")]
    git: Option<String>,
}

impl Execute for New {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        create(self)
    }
}

const LIB: &str = include_str!("../../../../../plugins/my-method/src/lib.rs");
const TEST: &str = include_str!("../../../../../plugins/my-method/tests/conformance.rs");
const MAIN: &str = include_str!("template/main.rs");
const EXPORT: &str = include_str!("template/export.rs");
const SOURCE_README: &str = include_str!("template/source.md");
const BINARY_README: &str = include_str!("template/binary.md");
const FORMAT: &str = include_str!("../../../../../rustfmt.toml");
const CI: &str = include_str!("template/check.yml");

fn create(args: &New) -> Result<()> {
    let name = &args.name;
    require_name(name)?;
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from(name));
    if folder.exists() {
        return Err(Error::usage(format!(
            "{}: this is there already; choose another folder with --out DIR",
            folder.display()
        )));
    }
    let home = home(args)?;
    let snake = name.replace('-', "_");
    let rename = |text: &str| {
        text.replace("my-method", name)
            .replace("my_method", &snake)
            .replace("MyMethod", &camel(name))
    };
    let readme = if args.binary { BINARY_README } else { SOURCE_README };
    let mut files = vec![
        ("Cargo.toml", rename(&manifest(args.binary, &home))),
        ("README.md", rename(readme)),
        ("tests/conformance.rs", rename(TEST)),
        ("rustfmt.toml", FORMAT.to_owned()),
        (".gitignore", "/target\n/runs\n".to_owned()),
        (".github/workflows/check.yml", CI.to_owned()),
    ];
    match args.binary {
        true => files.push(("src/lib.rs", rename(&format!("{LIB}\n{EXPORT}")))),
        false => files.extend([("src/lib.rs", rename(LIB)), ("src/main.rs", rename(MAIN))]),
    }
    for (file, text) in &files {
        let path = folder.join(file);
        let parent = path.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        std::fs::write(&path, text).map_err(Error::io(&path))?;
    }
    println!(
        "written to {}: {}",
        folder.display(),
        files.iter().map(|(f, _)| *f).collect::<Vec<_>>().join(", ")
    );
    println!("depends on cilbench by {home}");
    println!("\nTry next, in that folder:\n  cargo test --release");
    match args.binary {
        true => {
            println!("  cargo build --release");
            println!("  cilbench plugin check target/release/{}", library(&snake));
            println!("  cilbench run --plugin target/release/{} --method {name}", library(&snake));
        }
        false => println!("  cargo run --release -- run --method {name}"),
    }
    Ok(())
}

/// The file name of a library on this system.
fn library(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Refuses a name that cannot be both a method's and a crate's.
fn require_name(name: &str) -> Result<()> {
    let word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_lowercase())
            && w.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if !name.split('-').all(word) || ["cilbench", "test", "core", "std", "main"].contains(&name) {
        return Err(Error::usage(format!(
            "plugin new {name}: a name consists of lower-case words joined by hyphens, as in my-method"
        )));
    }
    match method::all().iter().find(|e| e.about.name == name) {
        Some(entry) => Err(Error::usage(format!(
            "plugin new {name}: the name is taken: it is {}; choose another",
            entry.origin
        ))),
        None => Ok(()),
    }
}

fn camel(name: &str) -> String {
    let upper = |w: &str| w[..1].to_uppercase() + &w[1..];
    name.split('-').map(upper).collect()
}

/// The place of the cilbench that the crate depends on.
enum Home {
    Path(PathBuf),
    Git(String),
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "path, {}", path.display()),
            Self::Git(url) => write!(f, "git, {url}"),
        }
    }
}

fn home(args: &New) -> Result<Home> {
    match (&args.path, &args.git) {
        (Some(path), _) => {
            if !path.join("framework/core/Cargo.toml").is_file() {
                return Err(Error::usage(format!(
                    "--path {}: this is not the repository of cilbench: framework/core is not in it",
                    path.display()
                )));
            }
            Ok(Home::Path(std::fs::canonicalize(path).map_err(Error::io(path))?))
        }
        (None, Some(url)) => Ok(Home::Git(url.clone())),
        (None, None) => Err(Error::usage(
            "plugin new: cilbench is in no registry yet: name its repository with --path DIR or --git URL",
        )),
    }
}

fn manifest(binary: bool, home: &Home) -> String {
    let dependency = |name: &str, folder: &str| match home {
        Home::Path(root) => format!("{name} = {{ path = {:?} }}\n", root.join(folder)),
        Home::Git(url) => format!("{name} = {{ git = {url:?} }}\n"),
    };
    let mut text = String::from(
        "[package]\nname = \"my-method\"\nversion = \"0.1.0\"\nedition = \"2024\"\nrust-version = \"1.89\"\npublish = false\n\n[workspace]\n\n",
    );
    if binary {
        text += "[lib]\n# The library that cilbench opens, and the one that the tests use.\ncrate-type = [\"cdylib\", \"rlib\"]\n\n";
    } else {
        text += "[[bin]]\nname = \"cilbench-my-method\"\npath = \"src/main.rs\"\n\n";
    }
    text += "[dependencies]\n";
    text += "candle-core = { version = \"0.11.1\", default-features = false }\n";
    text += &dependency("cilbench", "framework/core");
    if binary {
        text += "mimalloc = { version = \"0.1\", default-features = false, features = [\"local_dynamic_tls\"] }\n";
    } else {
        text += &dependency("cilbench-cli", "framework/cli");
    }
    text += "inventory = \"0.3\"\nschemars = \"1.0\"\nserde = { version = \"1.0\", features = [\"derive\"] }\n\n";
    text += "[profile.release]\ndebug = \"line-tables-only\"\n";
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn args(name: &str, out: &Path, binary: bool) -> New {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        New { name: name.into(), out: Some(out.into()), binary, path: Some(path), git: None }
    }

    #[test]
    fn a_crate_is_the_workspace_s_own_under_another_name() {
        let place = tempfile::tempdir().expect("folder");
        for binary in [false, true] {
            let folder = place.path().join(format!("out-{binary}"));
            create(&args("two-words2", &folder, binary)).expect("written");
            let text = |f: &str| std::fs::read_to_string(folder.join(f)).expect(f);
            let lib = text("src/lib.rs");
            assert!(
                lib.starts_with(
                    &LIB.replace("my-method", "two-words2").replace("MyMethod", "TwoWords2")
                ),
                "{lib}"
            );
            assert_eq!(lib.contains("export_method!(TwoWords2)"), binary);
            assert_eq!(folder.join("src/main.rs").exists(), !binary);
            let manifest = text("Cargo.toml").parse::<cilbench::toml::Table>().expect("TOML");
            assert_eq!(manifest["package"]["name"].as_str(), Some("two-words2"));
            assert_eq!(
                manifest.get("lib").and_then(|lib| lib.get("crate-type")).is_some(),
                binary,
                "{manifest}"
            );
            for file in ["Cargo.toml", "README.md", "src/lib.rs", "tests/conformance.rs"] {
                let text = text(file).to_lowercase();
                assert!(
                    !["my-method", "my_method", "mymethod"].iter().any(|n| text.contains(n)),
                    "{file}"
                );
            }
            assert!(
                create(&args("two-words2", &folder, binary))
                    .expect_err("there")
                    .to_string()
                    .contains("there already")
            );
        }
    }

    #[test]
    fn bad_names_are_refused_and_nothing_is_written() {
        let place = tempfile::tempdir().expect("folder");
        for (name, expected) in [
            ("My", "lower-case"),
            ("a--b", "lower-case"),
            ("2a", "lower-case"),
            ("a/b", "lower-case"),
            ("", "lower-case"),
            ("lora", "taken"),
        ] {
            let folder = place.path().join("out");
            let error = create(&args(name, &folder, true)).expect_err("must be refused");
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!folder.exists());
        }
        let nowhere = New { path: None, ..args("fine", &place.path().join("out"), false) };
        assert!(create(&nowhere).expect_err("no home").to_string().contains("--path DIR"));
    }
}
