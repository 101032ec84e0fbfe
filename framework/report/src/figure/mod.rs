//! Figures: drawn by plotters as SVG without a font of the system, as files and as parts of a page.

mod bars;
mod canvas;
mod lines;
mod map;
mod png;
mod ranking;
mod scatter;

use std::path::Path;

use cilbench::{Error, Result};

pub use bars::bars;
pub use canvas::Figure;
pub use lines::{Line, Lines, lines};
pub use map::{Cells, map};
pub use png::png;
pub use ranking::{Bar, ranking};
pub use scatter::{Dot, Scatter, scatter};

impl Figure {
    /// The drawing as a part of a page: it fills its place, has the page's colours and type, and is
    /// described in words.
    pub fn inline(&self) -> String {
        let start = self.svg.find("<svg").unwrap_or(0);
        let rest = &self.svg[start..];
        let (open, body) = rest.split_at(rest.find('>').map_or(0, |i| i + 1));
        let view =
            open.find("viewBox=\"").map_or("", |i| open[i..].split('"').nth(1).unwrap_or(""));
        let mut body = body.replace(" font-family=\"sans-serif\"", "");
        for (color, name) in canvas::variables() {
            let hex = format!("\"#{:02X}{:02X}{:02X}\"", color.0, color.1, color.2);
            body = body.replace(&hex, &format!("\"var(--{name})\""));
        }
        let title = self.title.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        format!("<svg viewBox=\"{view}\" role=\"img\" aria-label=\"{title}\">{body}")
    }
}

/// Writes figures into a folder, each as SVG and PNG. Files of the same names that are not figures
/// of ours are left as they are.
///
/// # Errors
/// [`Error::Usage`] if the folder cannot be used; [`Error::Io`] if a file cannot be written.
pub fn write_all(option: &str, folder: &Path, figures: &[Figure]) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::usage(format!(
            "{option} {}: this is a file; name a folder",
            folder.display()
        )));
    }
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    for figure in figures {
        let svg = folder.join(format!("{}.svg", figure.name));
        let text =
            figure.svg.replacen('>', &format!("><!-- {} report -->", crate::output::MARK), 1);
        crate::output::write(option, &svg, text.as_bytes())?;
        crate::output::replace(&svg.with_extension("png"), &png(figure)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod test;
