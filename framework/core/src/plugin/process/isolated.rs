//! A binary plugin in a process of its own: this program, started again, opens the library and speaks the protocol of a process plugin.

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
use crate::plugin::messages::{Answer, Failure, Offer, PROTOCOL, ToHost, ToPlugin};
use crate::plugin::{Kind, Plugin, abi};
use crate::{Error, Result};

/// Opens a library in a child process: `words` start this program so that it calls [`serve`] with the path that is put behind them. A crash of the plugin
/// is then an error of the call, and nothing more.
///
/// # Errors
/// As [`open`](crate::plugin::open); [`Error::Protocol`] if it ends the child.
pub fn isolate(path: &Path, words: Vec<String>, timeout: Duration) -> Result<Opened> {
    let sha256 = load::inspect(path)?;
    let path = std::path::absolute(path).map_err(Error::io(path))?;
    let text = path.to_str().ok_or_else(|| Error::file(&path, "a plugin needs a path that is UTF-8: rename it"))?.to_owned();
    let words = words.into_iter().chain([text.clone()]).collect();
    let command = Arc::new(PluginCommand::of(text, words, vec![path.clone()])?);
    let (link, offer) = ProcessLink::start(&command, timeout)?;
    let plugin = Plugin { kind: Kind::Binary, name: offer.name.clone(), version: offer.version.clone(), protocol: abi::VERSION, sha256 };
    let connect = Arc::new(Processes::new(command, timeout, offer.clone(), link));
    Ok(Opened { plugin, path, offer, connect })
}

/// The child's part: opens the library and answers calls over standard input and output until the input ends.
///
/// # Errors
/// If the connection breaks. A library that cannot be opened is told to the parent.
pub fn serve(path: &Path) -> Result<()> {
    let mut out = protocol_output()?;
    let opened = match load::open(path) {
        Ok(opened) => opened,
        Err(error) => return send(&mut out, &serde_json::json!({ "failed": Failure::from(&error) })),
    };
    send(&mut out, &ToHost::Offer(Offer { protocol: PROTOCOL, ..opened.offer.clone() }))?;
    let mut parent = Parent { input: BufReader::new(std::io::stdin()), out, probing: false };
    let mut link = opened.connect.connect()?;
    while let Some(message) = parent.receive()? {
        let ToPlugin::Call { call, probing } = message else {
            return Err(Error::Protocol("the harness sent a reply to no request".into()));
        };
        parent.probing = probing;
        let answer = link.call(call, Some(&mut parent)).unwrap_or_else(|e| Answer::Failed(Failure::from(&e)));
        send(&mut parent.out, &ToHost::Answer(answer))?;
    }
    Ok(())
}

/// The standard output as it was. What the library prints goes to the standard error from here on.
#[cfg(unix)]
fn protocol_output() -> Result<File> {
    use std::os::fd::{AsFd, AsRawFd};
    let failed = Error::io("standard output");
    let (out, error) = (std::io::stdout(), std::io::stderr());
    let kept = match out.as_fd().try_clone_to_owned() {
        Ok(kept) => kept,
        Err(e) => return Err(failed(e)),
    };
    // SAFETY: both are open for as long as the process lives.
    if unsafe { libc::dup2(error.as_raw_fd(), out.as_raw_fd()) } < 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    Ok(File::from(kept))
}

#[cfg(not(unix))]
fn protocol_output() -> Result<File> {
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
    input: BufReader<std::io::Stdin>,
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
            Some(ToPlugin::Call { .. }) => Err(Error::Protocol("the harness sent a call while a request was open".into())),
            None => Err(Error::Protocol("the harness has gone".into())),
        }
    }

    fn probing(&self) -> bool {
        self.probing
    }
}
