//! The options that every command takes.

/// The options that every command takes.
#[derive(clap::Args)]
pub(crate) struct GlobalArgs {
    /// Threads to use (all processors by default); results do not depend on it
    #[arg(long, global = true)]
    pub threads: Option<usize>,
    /// Download nothing: use what is here or in the cache (as HF_HUB_OFFLINE=1)
    #[arg(long, global = true)]
    pub offline: bool,
    /// A plugin: a library (.so, .dylib, .dll), or the command that starts a process, as in
    /// "python3 my_method.py"; may be repeated
    #[arg(long, global = true, value_name = "FILE|COMMAND")]
    pub plugin: Vec<String>,
    /// How long a process plugin may take to answer one call [default: 600]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub plugin_timeout: Option<f64>,
}
