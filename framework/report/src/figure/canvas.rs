//! What all figures share: colours, type, axes, and the way from a drawing to SVG and PNG.

use cilbench::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Where a figure is drawn.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A figure, as SVG for paper: dark on white.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// A name for its file.
    pub name: String,
    /// What it shows, for its caption and for those who cannot see it.
    pub title: String,
    /// The drawing.
    pub svg: String,
}

/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(0x1a, 0x1c, 0x1f);
/// Text of less weight.
pub(super) const SOFT: RGBColor = RGBColor(0x5b, 0x61, 0x69);
/// Lines of a grid.
pub(super) const GRID: RGBColor = RGBColor(0xdd, 0xe0, 0xe4);
/// Rows that are not told apart by colour.
pub(super) const OTHERS: RGBColor = RGBColor(0xa9, 0xaf, 0xb7);
/// What lies behind everything.
pub(super) const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);

/// Colours that readers with any colour vision tell apart (Okabe and Ito 2008, "Color universal
/// design"), but for yellow, which is too faint on white.
pub(super) const SERIES: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

/// Every colour that a page changes with its own, by the name of the variable in its style.
pub(super) fn variables() -> Vec<(RGBColor, String)> {
    let mut all = vec![(INK, "ink".to_owned()), (SOFT, "soft".into()), (GRID, "grid".into())];
    all.extend([(OTHERS, "others".to_owned()), (PAPER, "paper".to_owned())]);
    all.extend(SERIES.iter().enumerate().map(|(i, c)| (*c, format!("series-{i}"))));
    all
}

/// The size of text, in pixels of a figure.
pub(super) const TEXT: f64 = 15.0;

/// Text in a colour, anchored at its left, middle or right.
pub(super) fn text(color: RGBColor, at: HPos) -> TextStyle<'static> {
    ("sans-serif", TEXT).into_font().color(&color).pos(Pos::new(at, VPos::Center))
}

/// Draws a figure of a size.
pub(super) fn draw(
    (name, title): (&str, &str),
    (width, height): (u32, u32),
    inside: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Figure> {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let paper = area.fill(&PAPER).map_err(Into::into);
        paper.and_then(|()| inside(&area)).and_then(|()| area.present().map_err(Into::into))
    };
    drawn.map_err(|e: Box<dyn std::error::Error>| {
        Error::Protocol(format!("figure {name} cannot be drawn: {e}"))
    })?;
    Ok(Figure { name: name.to_owned(), title: title.to_owned(), svg: lean(&svg) })
}

/// Takes out of an SVG what says nothing: full opacity, absent strokes and line breaks.
fn lean(svg: &str) -> String {
    let mut svg = svg.replace(" opacity=\"1\"", "").replace("<rect", "\n<rect");
    for (long, short) in [("\n\n", "\n"), (" stroke=\"none\"", ""), ("\n</text>", "</text>")] {
        svg = svg.replace(long, short);
    }
    svg.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A range of values with room at both ends, within `least` and `most`.
pub(super) fn range(
    values: impl Iterator<Item = f64>,
    least: f64,
    most: f64,
) -> std::ops::Range<f64> {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if low > high {
        return least.max(0.0)..most.min(1.0).max(least.max(0.0) + 1.0);
    }
    let room = ((high - low) * 0.06).max(0.01 * high.abs()).max(1e-6);
    (low - room).max(least)..(high + room).min(most)
}

/// The number of digits that tells marks of an axis apart.
pub(super) fn digits(range: &std::ops::Range<f64>) -> usize {
    let step = (range.end - range.start) / 5.0;
    if step >= 1.0 { 0 } else { ((-step.log10()).ceil().max(1.0) as usize).min(6) }
}
