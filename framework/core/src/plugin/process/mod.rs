//! Process plugins: a method in a program of its own, in any language, that talks over its standard
//! input and output.
//!
//! What crosses is described in `plugins/PROTOCOL.md`: the messages of
//! [`messages`](super::messages) as JSON in frames, arrays beside it. Every instance of a method is
//! a process of its own, so that dropping it forgets everything but its state, globals of the
//! script too.

mod child;
mod command;
mod frame;
mod isolated;
mod link;
mod optional;
mod payload;
mod shared;
mod watchdog;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use command::PluginCommand;
pub use isolated::{isolate, serve};

use super::messages::{Offer, PROTOCOL};
use super::{Connect, Kind, Link, Plugin, register_offer};
use crate::method::MethodEntry;
use crate::{Error, Result};
use link::ProcessLink;

/// How long a plugin may take to answer a call, unless the user says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// Starts the plugin of a command, such as `python3 my_method.py`, and registers its methods.
///
/// # Errors
/// [`Error::Usage`] for a command that cannot be started, or a name that is taken;
/// [`Error::Protocol`] for a program that does not speak the protocol, or another version of it.
pub fn register(command: &str, timeout: Duration) -> Result<Vec<&'static MethodEntry>> {
    let command = Arc::new(PluginCommand::parse(command)?);
    let (link, offer) = ProcessLink::start(&command, timeout)?;
    let plugin = Plugin {
        kind: Kind::Process,
        name: offer.name.clone(),
        version: offer.version.clone(),
        protocol: PROTOCOL,
        sha256: command.sha256().to_owned(),
    };
    let processes = Processes::new(command.clone(), timeout, offer.clone(), link);
    register_offer(&offer, &plugin, command.text(), Arc::new(processes))
}

/// Starts a process for every instance.
struct Processes {
    command: Arc<PluginCommand>,
    timeout: Duration,
    offer: Offer,
    /// The process that made the offer, until the first instance takes it.
    started: Mutex<Option<ProcessLink>>,
}

impl Processes {
    fn new(
        command: Arc<PluginCommand>,
        timeout: Duration,
        offer: Offer,
        link: ProcessLink,
    ) -> Self {
        Self { command, timeout, offer, started: Mutex::new(Some(link)) }
    }
}

impl Connect for Processes {
    fn connect(&self) -> Result<Box<dyn Link>> {
        self.command.unchanged()?;
        if let Some(link) = self.started.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(Box::new(link));
        }
        let (link, offer) = ProcessLink::start(&self.command, self.timeout)?;
        if offer != self.offer {
            return Err(Error::Protocol(format!(
                "plugin {} ({}): started again, it offers other methods or hyper-parameters than before; it must always offer the same",
                self.offer.name,
                self.command.text()
            )));
        }
        Ok(Box::new(link))
    }
}
