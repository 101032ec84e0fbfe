//! Lists of images: `path label` lines as data sets ship them, and manifests of the user's own.

mod columns;
mod labels;
mod manifest;
mod path;
mod plain;
mod text;

pub use manifest::read_manifest;
pub use plain::{Line, parse_list, read_list};
pub use text::{read_names, read_text};
