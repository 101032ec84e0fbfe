//! A binary plugin in a process of its own: this program, started again, opens the library and
//! speaks the protocol of a process plugin.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::command::PluginCommand;
use super::frame::{self, Broken, Place};
use super::payload::{self, Sink};
use super::{ProcessLink, Processes};
use crate::context::{Host, Reply, Request};
use crate::plugin::load::{self, Opened};
use crate::plugin::messages::{
    Answer, Call, Failure, FailureClass, Offer, PROTOCOL, PROTOCOL_REVISION, ToHost, ToPlugin,
};
use crate::plugin::{Kind, Plugin, abi};
use crate::{Error, Result};

/// Opens a library in a child process: `words` start this program so that it calls [`serve`] with
/// the path that is put behind them. A crash of the plugin is then an error of the call, and
/// nothing more.
///
/// # Errors
/// As [`open`](crate::plugin::open); [`Error::Protocol`] if it ends the child.
pub fn isolate(path: &Path, words: Vec<String>, timeout: Duration) -> Result<Opened> {
    let sha256 = load::inspect(path)?;
    let path = std::path::absolute(path).map_err(Error::io(path))?;
    let text = path
        .to_str()
        .ok_or_else(|| Error::file(&path, "a plugin needs a path that is UTF-8: rename it"))?
        .to_owned();
    let words = words.into_iter().chain([text.clone()]).collect();
    let command = Arc::new(PluginCommand::of(text, words, vec![path.clone()])?);
    let (link, offer) = ProcessLink::start(&command, timeout)?;
    let plugin = Plugin {
        kind: Kind::Binary,
        name: offer.name.clone(),
        version: offer.version.clone(),
        protocol: abi::VERSION,
        sha256,
    };
    let connect = Arc::new(Processes::new(command, timeout, offer.clone(), link));
    Ok(Opened { plugin, path, offer, connect })
}

/// The child's part: opens the library and answers calls over standard input and output until the
/// input ends.
///
/// # Errors
/// If the connection breaks. A library that cannot be opened is told to the parent.
pub fn serve(path: &Path) -> Result<()> {
    let (input, mut out) = protocol_pipes()?;
    end_with_parent();
    let opened = match load::open(path) {
        Ok(opened) => opened,
        Err(error) => {
            return send(&mut out, &serde_json::json!({ "failed": Failure::from(&error) }));
        }
    };
    send(
        &mut out,
        &ToHost::Offer(Offer {
            protocol: PROTOCOL,
            revision: PROTOCOL_REVISION,
            ..opened.offer.clone()
        }),
    )?;
    let mut parent = Parent { input: BufReader::new(input), out, probing: false };
    let mut link = opened.connect.connect()?;
    while let Some(message) = parent.receive()? {
        let ToPlugin::Call { call, probing } = message else {
            return Err(Error::Protocol("the harness sent a reply to no request".into()));
        };
        parent.probing = probing;
        let place = place(&call);
        let answer = link
            .call(call, Some(&mut parent))
            .unwrap_or_else(|e| Answer::Failed(Failure::from(&e)));
        send(&mut parent.out, &ToHost::Answer(finite(answer, &place)))?;
    }
    Ok(())
}

/// Where a call is in the run, for its errors.
fn place(call: &Call) -> String {
    match call {
        Call::Observe { epoch, step, task, .. } => {
            format!("task {}, epoch {}, step {}", task.index + 1, epoch + 1, step + 1)
        }
        other => other.name().to_owned(),
    }
}

/// JSON has no NaN and no infinity: losses that are none are told in words.
fn finite(answer: Answer, place: &str) -> Answer {
    match &answer {
        Answer::Losses(losses) => match losses.0.iter().find(|(_, value)| !value.is_finite()) {
            Some((term, value)) => {
                let text = format!(
                    "the loss term '{term}' is {value} in {place}: lower the learning rate"
                );
                Answer::Failed(Failure { class: FailureClass::Diverged, text })
            }
            None => answer,
        },
        _ => answer,
    }
}

/// Ends this process soon after the harness has gone, even in the middle of a call that never
/// returns.
fn end_with_parent() {
    #[cfg(unix)]
    {
        let parent = std::os::unix::process::parent_id();
        std::thread::spawn(move || {
            while std::os::unix::process::parent_id() == parent {
                std::thread::sleep(Duration::from_secs(1));
            }
            // SAFETY: ends the process without running anything of the library's, which may be
            // stuck, and with it what it started: the harness made it the leader of a group.
            unsafe {
                if libc::getpgrp() == libc::getpid() {
                    libc::kill(0, libc::SIGKILL);
                }
                libc::_exit(1)
            };
        });
    }
}

/// The standard input and output as they were. What the library prints goes to the standard error
/// from here on, and what it reads is empty.
#[cfg(unix)]
fn protocol_pipes() -> Result<(File, File)> {
    use std::os::fd::{AsFd, AsRawFd};
    let (input, out, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let kept = input
        .as_fd()
        .try_clone_to_owned()
        .and_then(|input| Ok((input, out.as_fd().try_clone_to_owned()?)));
    let (kept_input, kept_out) = kept.map_err(Error::io("the pipes to the harness"))?;
    let nothing = File::open("/dev/null").map_err(Error::io("/dev/null"))?;
    // SAFETY: all are open for as long as the process lives, or until the call is over.
    if unsafe {
        libc::dup2(error.as_raw_fd(), out.as_raw_fd()) < 0
            || libc::dup2(nothing.as_raw_fd(), input.as_raw_fd()) < 0
    } {
        return Err(Error::io("the pipes to the harness")(std::io::Error::last_os_error()));
    }
    Ok((File::from(kept_input), File::from(kept_out)))
}

#[cfg(not(unix))]
fn protocol_pipes() -> Result<(File, File)> {
    Err(Error::Unsupported("a binary plugin in a process of its own, on this system".into()))
}

fn send<T: serde::Serialize>(out: &mut impl Write, message: &T) -> Result<()> {
    let (text, sink, size) = payload::write(message, Sink::Memory(Vec::new()));
    let text = text.map_err(|e| Error::Protocol(format!("a message is no JSON: {e}")))?;
    let Sink::Memory(arrays) = sink else { unreachable!("the sink that was given") };
    frame::write(out, Place::Behind, &text, &arrays, size).map_err(Error::io("standard output"))
}

/// The harness, in the process before this one.
struct Parent {
    input: BufReader<File>,
    out: File,
    probing: bool,
}

impl Parent {
    /// The next message; none when the harness has gone.
    fn receive(&mut self) -> Result<Option<ToPlugin>> {
        match frame::read(&mut self.input) {
            Ok(message) => Ok(Some(message)),
            Err(Broken::Ended(bytes)) if bytes.is_empty() => Ok(None),
            Err(broken) => Err(Error::Protocol(format!("from the harness: {broken:?}"))),
        }
    }
}

impl Host for Parent {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        send(&mut self.out, &ToHost::Request(request))?;
        match self.receive()? {
            Some(ToPlugin::Reply(reply)) => Ok(reply),
            Some(ToPlugin::Failed(failure)) => Err(failure.error()),
            Some(ToPlugin::Call { .. }) => {
                Err(Error::Protocol("the harness sent a call while a request was open".into()))
            }
            None => Err(Error::Protocol("the harness has gone".into())),
        }
    }

    fn probing(&self) -> bool {
        self.probing
    }
}
