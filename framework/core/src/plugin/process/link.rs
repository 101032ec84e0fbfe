//! The connection to a running plugin: calls out, requests in, answers back.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::child::Running;
use super::command::PluginCommand;
use super::frame::{self, Broken, Place, shown};
use super::payload::{self, Sink};
use super::shared::SharedFile;
use crate::context::Host;
use crate::context::NoHost;
use crate::error::catching;
use crate::plugin::Link;
use crate::plugin::messages::{
    Answer, Call, Failure, Offer, PROTOCOL, PROTOCOL_REVISION, ToHost, ToPlugin,
};
use crate::{Error, Result};

/// A process and what is between us.
pub(super) struct ProcessLink {
    command: Arc<PluginCommand>,
    timeout: Duration,
    running: Running,
    /// Where arrays are left for it, if it reads them there.
    shared: Option<File>,
    /// The revision of the protocol that it speaks.
    revision: u64,
    /// Why nothing more can be asked of it.
    ended: Option<String>,
}

/// The first frame of a plugin.
#[derive(Deserialize)]
struct Greeting {
    #[serde(default)]
    offer: Value,
    /// Why there is no offer: a library that cannot be opened, in a process of its own.
    #[serde(default)]
    failed: Option<Failure>,
    /// Whether it reads the shared file.
    #[serde(default)]
    shared: bool,
    /// Keys that this version does not have. They are looked at once the version is known.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl ProcessLink {
    /// Starts a process and hears what it offers.
    pub(super) fn start(command: &Arc<PluginCommand>, timeout: Duration) -> Result<(Self, Offer)> {
        let shared = SharedFile::new();
        let running =
            Running::start(command, &label(command), shared.as_ref().map(SharedFile::path))?;
        let mut link = Self {
            command: command.clone(),
            timeout,
            running,
            shared: None,
            revision: 0,
            ended: None,
        };
        let greeting: Greeting = link.receive("its first frame")?;
        if let Some(failure) = greeting.failed {
            return Err(Failure {
                text: format!("plugin {}: {}", command.text(), failure.text),
                ..failure
            }
            .error());
        }
        link.shared = shared.filter(|_| greeting.shared).map(SharedFile::opened);
        // The version first: the rest of another version's offer may look different.
        let spoken = greeting.offer["protocol"].as_u64();
        if spoken != Some(u64::from(PROTOCOL)) {
            let text = format!("plugin {}: {}", command.text(), other_version(spoken));
            return Err(Error::Protocol(text));
        }
        link.revision = greeting.offer["revision"].as_u64().unwrap_or(0);
        let unknown = greeting.other.keys().next().map(|key| format!("unknown key '{key}'"));
        let offer = unknown
            .map_or_else(|| Offer::deserialize(greeting.offer).map_err(|e| e.to_string()), Err);
        let offer = offer.map_err(|what| {
            let what = link.misunderstood(&what);
            Error::Protocol(format!("plugin {}, in its offer: {what}", command.text()))
        })?;
        Ok((link, offer))
    }

    /// What is said of a message that cannot be understood: a key that is not known may be one of a
    /// later revision.
    fn misunderstood(&self, text: &str) -> String {
        format!(
            "a message that cannot be understood by this cilbench (protocol \
             {PROTOCOL}.{PROTOCOL_REVISION}; the plugin speaks {PROTOCOL}.{}): {text}",
            self.revision
        )
    }

    /// Sends a message, its arrays by the shared file if there is one.
    fn send(&mut self, during: &str, message: &ToPlugin) -> Result<()> {
        if let Some(file) = self.shared.take() {
            let (text, sink, size) = payload::write(message, Sink::File(file));
            let Sink::File(file) = sink else { unreachable!("the sink that was given") };
            if let Ok(text) = text {
                self.shared = Some(file);
                return self.write(during, Place::Shared, &text, &[], size);
            }
            // Shared memory that is full (64 MB in a container) is no reason to fail: it is freed,
            // and from here on arrays go through the pipe.
            let _ = file.set_len(0);
        }
        let (text, sink, size) = payload::write(message, Sink::Memory(Vec::new()));
        let text = text.map_err(|e| {
            Error::Protocol(format!(
                "plugin {}, in {during}: a message is no JSON: {e}",
                self.command.text()
            ))
        })?;
        let Sink::Memory(arrays) = sink else { unreachable!("the sink that was given") };
        self.write(during, Place::Behind, &text, &arrays, size)
    }

    fn write(
        &mut self,
        during: &str,
        place: Place,
        text: &[u8],
        arrays: &[u8],
        size: u64,
    ) -> Result<()> {
        self.running.watchdog.arm(self.timeout);
        let Some(input) = &mut self.running.input else {
            return Err(self.broken(during, Broken::Ended(Vec::new())));
        };
        let written = frame::write(input, place, text, arrays, size);
        self.running.watchdog.disarm();
        // A plugin that no longer reads has ended, or is about to; what it has said last tells more
        // than the broken pipe.
        written.map_err(|_| self.broken(during, Broken::Ended(Vec::new())))
    }

    fn receive<T: serde::de::DeserializeOwned>(&mut self, during: &str) -> Result<T> {
        self.running.watchdog.arm(self.timeout);
        let message = frame::read(&mut self.running.output);
        self.running.watchdog.disarm();
        message.map_err(|broken| self.broken(during, broken))
    }

    /// The connection is of no use any more: says why, and ends the process.
    fn broken(&mut self, during: &str, broken: Broken) -> Error {
        let expired = self.running.watchdog.expired();
        let how = self.running.obituary();
        let what = match broken {
            _ if expired => format!(
                "no answer within {} s (--plugin-timeout); it was killed",
                self.timeout.as_secs_f64()
            ),
            Broken::Ended(bytes) if bytes.is_empty() => format!("the process ended, {how}"),
            Broken::Ended(bytes) => {
                format!("the process ended in the middle of a message ({}), {how}", shown(&bytes))
            }
            Broken::Rubbish(bytes) => format!(
                "it wrote {} to its standard output, which belongs to the protocol: print to standard error \
                 (the Python package sees to that if it is imported before anything prints)",
                shown(&bytes)
            ),
            Broken::Message(text) => self.misunderstood(&text),
            Broken::Io(error) => format!("reading from it failed: {error}; {how}"),
        };
        let text = format!("plugin {}, in {during}: {what}", self.command.text());
        self.ended = Some(text.clone());
        Error::Protocol(text)
    }
}

impl Link for ProcessLink {
    fn call(&mut self, call: Call, mut host: Option<&mut dyn Host>) -> Result<Answer> {
        let name = call.name();
        if let Some(text) = &self.ended {
            return Err(Error::Protocol(format!("{name} cannot be called any more: {text}")));
        }
        let probing = host.as_ref().is_some_and(|h| h.probing());
        self.send(name, &ToPlugin::Call { call, probing })?;
        // The first request that failed: later ones fail too, and an answer that does not mind
        // rests on nothing.
        let mut failed = None;
        loop {
            match self.receive(name)? {
                ToHost::Answer(answer @ Answer::Failed(_)) => return Ok(answer),
                ToHost::Answer(answer) => return failed.map_or(Ok(answer), Err),
                ToHost::Request(request) => {
                    if failed.is_none() {
                        let reply = match &mut host {
                            Some(host) => catching(|| host.answer(request)),
                            None => NoHost.answer(request),
                        };
                        match reply {
                            Ok(reply) => {
                                self.send(name, &ToPlugin::Reply(reply))?;
                                continue;
                            }
                            Err(error) => failed = Some(error),
                        }
                    }
                    let failure = failed
                        .as_ref()
                        .map(Failure::from)
                        .unwrap_or_else(|| unreachable!("it failed"));
                    self.send(name, &ToPlugin::Failed(failure))?;
                }
                ToHost::Offer(_) => {
                    return Err(self.broken(name, Broken::Message("a second offer".into())));
                }
            }
        }
    }
}

/// What is said of a plugin of another version of the protocol.
fn other_version(theirs: Option<u64>) -> String {
    let spoken =
        theirs.map_or("no version of the protocol".to_owned(), |v| format!("protocol {v}"));
    let remedy = match theirs.is_some_and(|v| v > u64::from(PROTOCOL)) {
        true => "update cilbench, or rebuild the plugin against this one",
        false => {
            "rebuild the plugin against this cilbench (in Python: update its package cilbench)"
        }
    };
    format!("it speaks {spoken} and this cilbench speaks protocol {PROTOCOL}: {remedy}")
}

/// What a plugin's lines on standard error begin with: the script's name.
fn label(command: &PluginCommand) -> String {
    let (program, arguments) = command.words();
    let script = arguments
        .iter()
        .find(|a| std::path::Path::new(a).is_file())
        .map_or(program, String::as_str);
    std::path::Path::new(script)
        .file_stem()
        .map_or_else(|| script.to_owned(), |s| s.to_string_lossy().into_owned())
}
