//! Things that are found by name: methods, data sets, backbones and scenarios.

use std::sync::{PoisonError, RwLock};

use crate::{Error, Result};

/// Something with a name.
pub trait Named {
    /// Its name, as users write it.
    fn name(&self) -> &str;
}

/// All entries of one kind: those linked into this program, and those added while it runs.
pub struct Registry<T: 'static> {
    /// What an entry is called in messages.
    kind: &'static str,
    added: RwLock<Vec<&'static T>>,
}

impl<T: Named + inventory::Collect> Registry<T> {
    /// The entries that are linked into this program; `kind` is what one is called in messages.
    pub(crate) const fn new(kind: &'static str) -> Self {
        Self { kind, added: RwLock::new(Vec::new()) }
    }

    /// All entries, by name.
    pub(crate) fn all(&self) -> Vec<&'static T> {
        let mut all: Vec<_> = inventory::iter::<T>.into_iter().collect();
        all.extend(self.added.read().unwrap_or_else(PoisonError::into_inner).iter().copied());
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// The entry of this name.
    ///
    /// # Errors
    /// [`Error::Usage`] with the nearest known name, or if several entries took this one.
    pub(crate) fn find(&self, name: &str) -> Result<&'static T> {
        let named: Vec<_> = self.all().into_iter().filter(|entry| entry.name() == name).collect();
        let kind = self.kind;
        match named[..] {
            [entry] => Ok(entry),
            [] => Err(Error::unknown(kind, name, self.all().iter().map(|entry| entry.name()))),
            _ => {
                let several = named.len();
                Err(Error::usage(format!(
                    "{several} entries of the kind '{kind}' are called '{name}': rename one"
                )))
            }
        }
    }

    /// Adds an entry for good, unless its name is taken: then gives the entry that has it.
    pub(crate) fn add(&self, entry: T) -> Result<&'static T, &'static T> {
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        let linked = inventory::iter::<T>.into_iter();
        if let Some(other) =
            linked.chain(added.iter().copied()).find(|other| other.name() == entry.name())
        {
            return Err(other);
        }
        let entry: &'static T = Box::leak(Box::new(entry));
        added.push(entry);
        Ok(entry)
    }
}
