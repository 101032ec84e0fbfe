//! A method of this program behind messages that go through bytes and back: what a plugin boundary
//! does to it, for tests.

use std::sync::Arc;

use toml::Table;

use super::messages::{Answer, Call, Failure};
use super::remote::{Connect, Link, RemoteRecipe};
use super::serve::{Instance, build};
use crate::context::NoHost;
use crate::context::{Host, Serialised, round_trip};
use crate::method::{MethodEntry, Player, Recipe, Setup};
use crate::{Error, Result};

/// Builds the method of `entry` on the other side of a boundary.
///
/// # Errors
/// As [`MethodEntry::build`].
pub fn loopback(entry: &MethodEntry, config: &Table, setup: Setup) -> Result<Box<dyn Player>> {
    let name = entry.about.name;
    let connect: Arc<dyn Connect> = Arc::new(Here(entry.clone()));
    RemoteRecipe {
        method: name.to_owned(),
        whom: format!("{name} behind a boundary"),
        fields: entry.fields(),
        connect,
    }
    .build(config, setup, None)
}

struct Here(MethodEntry);

impl Connect for Here {
    fn connect(&self) -> Result<Box<dyn Link>> {
        Ok(Box::new(Loopback { entry: self.0.clone(), instance: None }))
    }
}

struct Loopback {
    entry: MethodEntry,
    instance: Option<Instance>,
}

impl Link for Loopback {
    fn call(&mut self, call: Call, host: Option<&mut dyn Host>) -> Result<Answer> {
        let call: Call = round_trip(&call)?;
        let answer = match (&call, &mut self.instance) {
            (Call::Build(from), None) => match build(&self.entry, from) {
                Ok(instance) => {
                    self.instance = Some(instance);
                    Answer::Done
                }
                Err(error) => Answer::Failed(Failure::from(&error)),
            },
            (_, None) => return Err(Error::Protocol("the method is not built yet".into())),
            (_, Some(instance)) => match host {
                Some(host) => instance.answer(call, &mut Serialised(host)),
                None => instance.answer(call, &mut NoHost),
            },
        };
        round_trip(&answer)
    }
}
