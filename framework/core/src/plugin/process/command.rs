//! The command that starts a plugin, and the hash of the files it names.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A command as the user gave it, split into words as a shell does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginCommand {
    text: String,
    words: Vec<String>,
    /// What is hashed.
    files: Vec<PathBuf>,
    sha256: String,
}

impl PluginCommand {
    /// Splits a command line and hashes the files that it names: the scripts.
    ///
    /// # Errors
    /// [`Error::Usage`] for an empty command or an open quote; [`Error::Io`] for a file that cannot
    /// be read.
    pub fn parse(text: &str) -> Result<Self> {
        let words = shlex::split(text).ok_or_else(|| {
            Error::usage(format!("plugin {text}: a quote is opened and not closed"))
        })?;
        if words.is_empty() {
            return Err(Error::usage(
                "plugin '': expected a command, as in --plugin \"python3 my_method.py\"",
            ));
        }
        // A script that is not there is the likeliest mistake, and Python's own message comes late.
        if let Some(script) = words.iter().find(|w| is_script(w) && !Path::new(w).is_file()) {
            return Err(Error::usage(format!("plugin {text}: there is no file {script}")));
        }
        if let Some((python, option)) = module_of_python(&words) {
            return Err(Error::usage(format!(
                "plugin {text}: {python} {option} names no file, so the record could not tell what was run: name the script, {python} FILE.py"
            )));
        }
        // The scripts: other files beside them may be logs, which change. Without a script a
        // program of its own that is named by its path, without one every file that is named, and
        // without any the program that PATH leads to, is the method.
        let mut files: Vec<PathBuf> =
            words.iter().filter(|w| is_script(w)).map(PathBuf::from).collect();
        if files.is_empty() && words[0].contains('/') && !runs_others(&words[0]) {
            files.extend(program(&words[0]));
        }
        if files.is_empty() {
            files.extend(words[1..].iter().map(PathBuf::from).filter(|w| w.is_file()));
        }
        if files.is_empty() {
            files.extend(program(&words[0]));
        }
        Self::of(text.to_owned(), words, files)
    }

    /// A command of these words, called `text` in messages, that stands for these files.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read.
    pub(super) fn of(text: String, words: Vec<String>, files: Vec<PathBuf>) -> Result<Self> {
        let sha256 = hash(&words, &files)?;
        Ok(Self { text, words, files, sha256 })
    }

    /// The command as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The program and its arguments.
    pub(super) fn words(&self) -> (&str, &[String]) {
        (&self.words[0], &self.words[1..])
    }

    /// SHA-256 of the script that the command names; if it names none, of the program where that is
    /// named by its path, else of another file, else of the program. Of a command with more
    /// arguments than that, over one line an argument: the SHA-256 of such a file, every other word
    /// as it is. What those files load from elsewhere is not covered.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The command with its files by absolute paths, so that it means the same in another folder.
    pub fn absolute(&self) -> String {
        let word = |w: &String| match self.files.iter().any(|f| f == Path::new(w)) {
            true => std::path::absolute(w).map_or_else(|_| w.clone(), |p| p.display().to_string()),
            false => w.clone(),
        };
        let words: Vec<String> = self.words.iter().map(word).collect();
        shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| self.text.clone())
    }

    /// An error if a file of the command is no longer what it was: a run must not mix two versions
    /// of a method.
    pub(super) fn unchanged(&self) -> Result<()> {
        if hash(&self.words, &self.files)? == self.sha256 {
            return Ok(());
        }
        Err(Error::Protocol(format!(
            "plugin {}: its files were changed while it was in use; give the command again",
            self.text
        )))
    }
}

/// The last part of a path, without the ending of a Windows program.
fn file_name(word: &str) -> String {
    let name = Path::new(word).file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".exe").unwrap_or(&name).to_owned()
}

/// Whether a word names Python: python, python3.12, python3.13t.
fn is_python(word: &str) -> bool {
    file_name(word)
        .strip_prefix("python")
        .is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || ".tw".contains(c)))
}

/// Whether a program runs a file that is named behind it.
fn runs_others(word: &str) -> bool {
    let known = [
        "bash", "bun", "conda", "deno", "env", "java", "julia", "lua", "node", "perl", "php",
        "pypy3", "Rscript", "ruby", "sh", "uv", "wasmtime",
    ];
    is_python(word) || known.contains(&file_name(word).as_str())
}

/// A Python among the words and its option that names a module or a program text (-m, -c) instead
/// of a file.
fn module_of_python(words: &[String]) -> Option<(&str, &str)> {
    (0..words.len()).filter(|at| is_python(&words[*at])).find_map(|at| {
        let mut options = words[at + 1..].iter();
        while let Some(option) = options.next().filter(|o| o.starts_with('-')) {
            if option.starts_with("--") {
                continue;
            }
            // Several letters may stand behind one dash; the first that takes an operand takes the
            // rest, or the next word.
            let letters = &option[1..];
            match letters.find(['m', 'c', 'X', 'W']).map(|i| letters.split_at(i).1) {
                Some(rest) if rest.starts_with(['m', 'c']) => {
                    return Some((words[at].as_str(), option.as_str()));
                }
                Some(rest) if rest.len() == 1 => drop(options.next()),
                _ => {}
            }
        }
        None
    })
}

/// Whether a word names a script, by its ending.
fn is_script(word: &str) -> bool {
    Path::new(word).extension().is_some_and(|e| {
        ["py", "sh", "rb", "jl", "js", "mjs", "cjs", "ts", "lua", "pl", "R", "r", "jar"]
            .iter()
            .any(|s| e == *s)
    })
}

/// The program's file: as it is named, or found on PATH.
fn program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|p| p.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|p| p.is_file())
}

fn hash(words: &[String], files: &[PathBuf]) -> Result<String> {
    let of_file = |file: &Path| Ok(crate::sha256(&std::fs::read(file).map_err(Error::io(file))?));
    let known = |word: &String| files.iter().find(|f| f.as_path() == Path::new(word));
    let arguments = words[1..].iter().map(|word| match known(word) {
        Some(file) => of_file(file),
        None => Ok(word.clone()),
    });
    // The program's name is left out where it runs a file: `python` and `python3` run the same
    // script.
    let program = files
        .iter()
        .filter(|f| !words[1..].iter().any(|w| Path::new(w) == f.as_path()))
        .map(|f| of_file(f));
    let lines = program.chain(arguments).collect::<Result<Vec<_>>>()?;
    match (lines.as_slice(), files) {
        ([line], [_]) => Ok(line.clone()),
        _ => Ok(crate::sha256(lines.join("\n").as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_like_a_shell_and_its_script_is_hashed() {
        let folder = tempfile::tempdir().expect("folder");
        let script = folder.path().join("my method.py");
        std::fs::write(&script, "abc").expect("script");
        let parse = |more: &str| {
            PluginCommand::parse(&format!("python3 '{}' {more}", script.display())).expect("valid")
        };
        let command = parse("");
        assert_eq!(
            (command.words().0, command.words().1),
            ("python3", &[script.display().to_string()][..])
        );
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            command.sha256(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_ne!(
            parse("--width 5").sha256(),
            parse("--width 6").sha256(),
            "arguments may change numbers"
        );
        assert_eq!(
            PluginCommand::parse(&command.absolute()).expect("valid").words(),
            command.words()
        );
        assert!(command.unchanged().is_ok());
        std::fs::write(&script, "abd").expect("script");
        assert!(
            command
                .unchanged()
                .expect_err("changed")
                .to_string()
                .contains("changed while it was in use")
        );
    }

    #[test]
    fn bad_commands_are_refused_before_anything_is_started() {
        for (text, expected) in [
            ("", "expected a command"),
            ("python 'x", "not closed"),
            ("python3 nowhere/x.py", "no file nowhere/x.py"),
            ("python3 -m my_method", "python3 -m names no file"),
            ("env python3 -u -X utf8 -mmy_method", "python3 -mmy_method names no file"),
            ("python3 -uc 'import my_method'", "python3 -uc names no file"),
            (
                "conda run -n python312 python3.12 -uW ignore -m my_method",
                "python3.12 -m names no file",
            ),
        ] {
            let error = PluginCommand::parse(text).expect_err("must be refused");
            assert!(
                matches!(error, Error::Usage(_)) && error.to_string().contains(expected),
                "{error}"
            );
        }
    }

    #[test]
    fn archives_and_a_program_without_a_script_are_hashed() {
        let folder = tempfile::tempdir().expect("folder");
        let jar = folder.path().join("method.jar");
        std::fs::write(&jar, "abc").expect("jar");
        let command = PluginCommand::parse(&format!("java -jar {}", jar.display())).expect("valid");
        std::fs::write(&jar, "abd").expect("jar");
        assert!(command.unchanged().is_err(), "an archive is a method's code as a script is");
        // A program named by its path, whatever files stand beside it.
        let (tool, data) = (folder.path().join("tool"), folder.path().join("data.json"));
        std::fs::write(&tool, "abc").and_then(|()| std::fs::write(&data, "{}")).expect("written");
        let command = PluginCommand::parse(&format!("{} {} -m x", tool.display(), data.display()))
            .expect("valid");
        std::fs::write(&data, "[]").expect("written");
        command.unchanged().expect("a program's data may change, as a log does");
        std::fs::write(&tool, "abd").expect("written");
        assert!(command.unchanged().is_err());
        // An interpreter named by its path is not the method: the file that it runs is, whatever
        // its ending.
        let python = folder.path().join("python3");
        std::fs::write(&python, "abc").expect("written");
        let command = PluginCommand::parse(&format!(
            "{} -uXimporttime {} -c 4",
            python.display(),
            tool.display()
        ))
        .expect("valid");
        std::fs::write(&python, "abd").expect("written");
        command.unchanged().expect("another interpreter");
        std::fs::write(&tool, "abe").expect("written");
        assert!(command.unchanged().is_err());
        // Found on PATH, as a program installed by pip is.
        let shell = PluginCommand::parse("sh").expect("valid");
        assert_eq!(
            shell.sha256(),
            crate::sha256(&std::fs::read(program("sh").expect("sh is on PATH")).expect("sh"))
        );
        assert_eq!(shell.absolute(), "sh");
    }
}
