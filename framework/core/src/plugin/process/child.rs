//! A running plugin process: its pipes, its last words, its end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::command::PluginCommand;
use super::watchdog::{Watchdog, exited, kill, kill_group, locked};
use crate::plugin::messages::{PROTOCOL, PROTOCOL_REVISION};
use crate::{Error, Result};

/// Tells a process that the harness started it: version and revision of the protocol, as in `2.0`.
const MARK: &str = "CILBENCH_PLUGIN";
/// The path of the shared file.
const SHARED: &str = "CILBENCH_SHARED";

/// Lines of standard error kept for an error's message.
const LAST_WORDS: usize = 12;
/// How long a process may take to end once its standard input is closed.
const GRACE: Duration = Duration::from_secs(3);

/// A process, which ends with this.
pub(super) struct Running {
    pub input: Option<ChildStdin>,
    pub output: BufReader<ChildStdout>,
    pub watchdog: Watchdog,
    child: Arc<Mutex<Child>>,
    last_words: Arc<Mutex<VecDeque<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts the command. What it writes to standard error is shown, each line behind `label`.
    pub(super) fn start(
        command: &PluginCommand,
        label: &str,
        shared: Option<&Path>,
    ) -> Result<Self> {
        let (program, arguments) = command.words();
        let mut start = Command::new(program);
        start.args(arguments).env(MARK, format!("{PROTOCOL}.{PROTOCOL_REVISION}"));
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match shared {
            Some(path) => start.env(SHARED, path),
            None => start.env_remove(SHARED),
        };
        // A group of its own: Ctrl-C reaches the harness alone, which still needs the plugin to
        // write a checkpoint.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut start, 0);
        let mut child = start.spawn().map_err(|e| not_started(command, program, &e))?;
        let (input, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(output), Some(errors)) = (output, errors) else {
            return Err(Error::Protocol(format!(
                "plugin {}: its pipes could not be opened",
                command.text()
            )));
        };
        let last_words = Arc::default();
        let listener = listen(errors, label.to_owned(), Arc::clone(&last_words));
        let child = Arc::new(Mutex::new(child));
        Ok(Self {
            input,
            output: BufReader::with_capacity(1 << 16, output),
            watchdog: Watchdog::new(child.clone()),
            child,
            last_words,
            listener: Some(listener),
        })
    }

    /// Makes sure that the process has ended, and says how and with which last words.
    pub(super) fn obituary(&mut self) -> String {
        self.watchdog.disarm();
        let status = match self.end() {
            Some(status) => status.to_string(),
            None => "it had to be killed".to_owned(),
        };
        // The last lines may still be on their way; a process of its own that keeps the pipe open
        // must not hold us up.
        let until = Instant::now() + Duration::from_secs(1);
        while self.listener.as_ref().is_some_and(|l| !l.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let lines = locked(&self.last_words);
        match lines.is_empty() {
            true => format!("{status}; it wrote nothing to standard error"),
            false => format!(
                "{status}; its last words on standard error:\n  {}",
                Vec::from(lines.clone()).join("\n  ")
            ),
        }
    }

    /// Closes its standard input and waits for its end; kills it after a while. Gives the exit
    /// status of one that ended by itself.
    fn end(&mut self) -> Option<ExitStatus> {
        self.input = None;
        let until = Instant::now() + GRACE;
        loop {
            let mut child = locked(&self.child);
            if exited(&child) {
                kill_group(&child);
            }
            match child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => {}
                _ => {
                    kill(&mut child);
                    let _ = child.wait();
                    return None;
                }
            }
            drop(child);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Shows what comes and keeps its last lines.
fn listen(
    errors: ChildStderr,
    label: String,
    last_words: Arc<Mutex<VecDeque<String>>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut errors = BufReader::new(errors);
        let mut line = Vec::new();
        while errors.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            eprintln!("[{label}] {text}");
            let mut kept = locked(&last_words);
            if kept.len() == LAST_WORDS {
                kept.pop_front();
            }
            kept.push_back(text);
            line.clear();
        }
    })
}

fn not_started(command: &PluginCommand, program: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::usage(format!(
            "plugin {}: there is no program '{program}'; name it by its path, or try python3",
            command.text()
        )),
        ErrorKind::PermissionDenied => Error::usage(format!(
            "plugin {}: '{program}' may not be executed: chmod +x, or put the interpreter first",
            command.text()
        )),
        _ => Error::usage(format!("plugin {}: it could not be started: {error}", command.text())),
    }
}
