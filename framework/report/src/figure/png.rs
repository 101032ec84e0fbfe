//! A figure as PNG, with the font that comes with this crate: every machine gives the same picture.

use std::sync::{Arc, OnceLock};

use cilbench::{Error, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::Figure;

/// DejaVu Sans, cut down to Latin, Greek and mathematical letters (see `fonts/LICENSE`).
static FONT: &[u8] = include_bytes!("../../fonts/DejaVuSans.ttf");

/// Pixels of the picture for one of the drawing: 300 to the inch at 8 cm for the usual figure.
const SCALE: f32 = 3.0;

fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(FONT.to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

/// The picture of a figure.
///
/// # Errors
/// [`Error::Protocol`] if it cannot be rendered.
pub fn png(figure: &Figure) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::Protocol(format!("figure {} cannot be rendered: {e}", figure.name))
    };
    let options =
        Options { fontdb: fonts(), font_family: "DejaVu Sans".to_owned(), ..Options::default() };
    let tree = Tree::from_str(&figure.svg, &options).map_err(|e| failed(&e))?;
    let size = tree.size();
    let mut picture = Pixmap::new((size.width() * SCALE) as u32, (size.height() * SCALE) as u32)
        .ok_or_else(|| failed(&"it has no size"))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut picture.as_mut());
    picture.encode_png().map_err(|e| failed(&e))
}
