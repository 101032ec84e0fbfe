//! Opening a binary plugin: what is not a plugin of this ABI is found out before any of its code
//! runs, as far as that can be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::abi::{self, CilMethod, CilPlugin, EntryFn};
use super::binary::Library;
use super::codes;
use super::flat::{self, Read};
use super::messages::{MethodOffer, Offer};
use super::remote::{Connect, register_offer};
use super::sized::{self, Writer};
use super::{Kind, Plugin};
use crate::method::MethodEntry;
use crate::{Error, Result};

/// A plugin that was opened, and what it offers.
pub struct Opened {
    /// The plugin.
    pub plugin: Plugin,
    /// Where it is.
    pub path: PathBuf,
    /// What it offers.
    pub offer: Offer,
    /// Opens instances of its methods.
    pub connect: Arc<dyn Connect>,
}

impl Opened {
    /// Adds its methods to the registry.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is taken.
    pub fn register(&self) -> Result<Vec<&'static MethodEntry>> {
        register_offer(
            &self.offer,
            &self.plugin,
            &self.path.display().to_string(),
            self.connect.clone(),
        )
    }
}

/// Opens a dynamic library in this process, for good. Its code runs with all rights of this
/// process.
///
/// # Errors
/// [`Error::File`] for what is no library or no plugin, [`Error::Unsupported`] for another
/// architecture or ABI version; all name the file.
pub fn open(path: &Path) -> Result<Opened> {
    let sha256 = inspect(path)?;
    let absolute = std::path::absolute(path).map_err(Error::io(path))?;
    // SAFETY: the user named this file, so its initialisation may run here; that is what a plugin
    // is.
    let library = unsafe { open_library(&absolute) }.map_err(|e| {
        // What the system said is the cause, not the error itself.
        let cause =
            std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        Error::file(path, format!("the system cannot load this library: {cause}"))
    })?;
    // Never unloaded: threads and thread-local values of the library may outlive any use of it.
    let library: &'static libloading::Library = Box::leak(Box::new(library));
    // SAFETY: a symbol of this name is a function of this type, by the ABI.
    let entry = unsafe { library.get::<EntryFn>(abi::ENTRY) };
    let entry = entry.map_err(|_| {
        let text = format!("there is no function {} in this library: it is no plugin of cilbench (see plugins/GUIDE.md)", abi::ENTRY);
        Error::file(path, text)
    })?;
    // SAFETY: as above.
    let table = unsafe { entry() };
    if table.is_null() {
        return Err(Error::file(
            path,
            format!("{} gave a null pointer: the plugin could not describe itself", abi::ENTRY),
        ));
    }
    // SAFETY: whatever the version, the table begins with it.
    let version = unsafe { table.cast::<u32>().read() };
    if version != abi::VERSION {
        return Err(Error::Unsupported(format!("{}: {}", path.display(), other_version(version))));
    }
    // SAFETY: the table is one of this version.
    let described = unsafe { describe(table) };
    let (offer, library) = described
        .map_err(|what| Error::file(path, format!("the plugin's description is broken: {what}")))?;
    let plugin = Plugin {
        kind: Kind::Binary,
        name: offer.name.clone(),
        version: offer.version.clone(),
        protocol: version,
        sha256,
    };
    Ok(Opened { plugin, path: absolute, offer, connect: Arc::new(library) })
}

/// What is said of a plugin of another version of the ABI.
fn other_version(theirs: u32) -> String {
    let own = abi::VERSION;
    let remedy = match theirs < own {
        true => "rebuild the plugin against this cilbench",
        false => "update cilbench, or rebuild the plugin against this one",
    };
    format!("the plugin speaks ABI {theirs} and this cilbench speaks ABI {own}: {remedy}")
}

#[cfg(unix)]
unsafe fn open_library(path: &Path) -> std::result::Result<libloading::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // Now, not lazily: a symbol that is missing is an error here and not the end of the process
    // later. SAFETY: the caller's promise.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into)
}

#[cfg(not(unix))]
unsafe fn open_library(path: &Path) -> std::result::Result<libloading::Library, libloading::Error> {
    // SAFETY: the caller's promise.
    unsafe { libloading::Library::new(path) }
}

/// Reads a table.
///
/// # Safety
/// It is one of this version of the ABI, and it never changes.
unsafe fn describe(table: *const CilPlugin) -> Read<(Offer, Library)> {
    // SAFETY: the caller's promise, here and below: in this version the size stands at its place,
    // and texts and lists are whole.
    let table = unsafe {
        let size = table.byte_add(std::mem::offset_of!(CilPlugin, size)).cast::<u32>().read();
        sized::copy(table, size.into())?
    };
    let writer = Writer::Plugin(table.revision);
    let methods = unsafe {
        sized::understood(&table, table.size.into(), writer)?;
        sized::list_from("the methods", table.methods, table.method_count.into(), writer)?
    };
    let (name, version) = unsafe {
        let name = flat::text("the plugin's name", table.name)?;
        (name, flat::text("the plugin's version", table.version)?)
    };
    let mut offer =
        Offer { protocol: table.abi, revision: table.revision, name, version, methods: Vec::new() };
    let mut library = Library { methods: Vec::new(), revision: table.revision };
    for method in methods {
        let described = unsafe { describe_method(&method)? };
        library.methods.push((described.name.clone(), method));
        offer.methods.push(described);
    }
    Ok((offer, library))
}

/// Reads a method's table.
///
/// # Safety
/// Its texts are null or end with a zero.
unsafe fn describe_method(m: &CilMethod) -> Read<MethodOffer> {
    // SAFETY: the caller's promise, here and below.
    let name = unsafe { flat::text("a method's name", m.name)? };
    let text = |what: &str, pointer| unsafe {
        flat::text(&format!("the {what} of method '{name}'"), pointer)
    };
    let missing = [
        ("create", m.create.is_none()),
        ("destroy", m.destroy.is_none()),
        ("plan", m.plan.is_none()),
        ("begin_task", m.begin_task.is_none()),
        ("observe", m.observe.is_none()),
        ("end_task", m.end_task.is_none()),
        ("predict", m.predict.is_none()),
        ("state", m.state.is_none()),
        ("restore", m.restore.is_none()),
    ];
    if let Some((function, _)) = missing.iter().find(|(_, missing)| *missing) {
        return Err(format!(
            "a null pointer where the function {function} of method '{name}' should be"
        ));
    }
    let trial_settings = match m.trial_settings.is_null() {
        true => String::new(),
        false => text("trial settings", m.trial_settings)?,
    };
    Ok(MethodOffer {
        version: text("version", m.version)?,
        summary: text("summary", m.summary)?,
        paper: text("paper", m.paper)?,
        access: codes::access(m.access)?,
        trains: text("trained scope", m.trains)?,
        presets: text("presets", m.presets)?,
        trial_settings,
        fields: text("hyper-parameters", m.fields)?,
        name,
    })
}

/// Looks at the file without loading it: whether it is a whole library for this machine. Gives its
/// SHA-256.
///
/// # Errors
/// As [`open`].
pub(super) fn inspect(path: &Path) -> Result<String> {
    if path.is_dir() {
        return Err(Error::usage(format!(
            "{}: this is a folder; --plugin wants the library in it",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    if cfg!(target_os = "linux") {
        elf(&bytes).map_err(|found| match found {
            Wrong::File(what) => Error::file(path, what),
            Wrong::Machine(what) => Error::Unsupported(format!("{}: {what}", path.display())),
        })?;
    }
    Ok(crate::sha256(&bytes))
}

enum Wrong {
    File(String),
    Machine(String),
}

/// Whether these are the bytes of a whole ELF library for this processor.
fn elf(bytes: &[u8]) -> std::result::Result<(), Wrong> {
    const MACHINES: [(u16, &str); 6] = [
        (3, "x86"),
        (40, "arm"),
        (62, "x86_64"),
        (183, "aarch64"),
        (22, "s390x"),
        (243, "riscv64"),
    ];
    if !bytes.starts_with(b"\x7fELF") || bytes.len() < 64 {
        return Err(Wrong::File("not a dynamic library (.so); a program is named by its command, as in \"python3 my_method.py\"".into()));
    }
    let at = |i: usize| u16::from_le_bytes([bytes[i], bytes[i + 1]]);
    let (wide, little, kind, machine) = (bytes[4] == 2, bytes[5] == 1, at(16), at(18));
    let name = MACHINES
        .iter()
        .find(|(code, _)| *code == machine)
        .map_or("another processor", |(_, name)| name);
    if !wide || !little || name != std::env::consts::ARCH {
        let bits = if wide { 64 } else { 32 };
        let text = format!(
            "built for {name} ({bits} bits), this machine is {}: build the plugin for this machine",
            std::env::consts::ARCH
        );
        return Err(Wrong::Machine(text));
    }
    if kind != 3 {
        return Err(Wrong::File(
            "an ELF file, but not a dynamic library: link it with -shared (in Rust: crate-type = [\"cdylib\"])".into(),
        ));
    }
    let mut offset = [0; 8];
    offset.copy_from_slice(&bytes[40..48]);
    let end = u64::from_le_bytes(offset).saturating_add(u64::from(at(58)) * u64::from(at(60)));
    if end > bytes.len() as u64 {
        return Err(Wrong::File(format!("truncated: {} bytes, of at least {end}", bytes.len())));
    }
    Ok(())
}
