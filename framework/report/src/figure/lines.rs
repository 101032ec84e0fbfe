//! Lines over tasks or steps, with bands.

use cilbench::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, Figure, GRID, INK, OTHERS, SERIES, SOFT, digits, draw, range, text};

/// One line.
pub struct Line {
    /// Its name, for the legend.
    pub name: String,
    /// Its points: place and value.
    pub points: Vec<(f64, f64)>,
    /// The lowest and highest value at each point, where there are several.
    pub band: Vec<(f64, f64)>,
    /// Whether it is a bound, drawn dark and apart from the others.
    pub bound: bool,
}

/// A figure of lines.
pub struct Lines<'a> {
    /// The figure's name and title.
    pub about: (&'a str, &'a str),
    /// What stands at the axes.
    pub axes: (&'a str, &'a str),
    /// The lowest and highest value that there can be.
    pub limits: (f64, f64),
    /// Whether places are whole numbers, each a mark.
    pub marks: bool,
    /// The lines, the most important first.
    pub lines: Vec<Line>,
}

const WIDTH: u32 = 520;
const PLOT: u32 = 300;
const ROW: u32 = 21;
const COLUMNS: usize = 3;

/// How a line is drawn: the first in colours of their own, bounds dark, the others grey.
fn style(lines: &[Line], i: usize) -> (RGBColor, usize) {
    let colored = lines[..i].iter().filter(|l| !l.bound).count();
    match lines[i].bound {
        true => (INK, SERIES.len()),
        false => (SERIES.get(colored).copied().unwrap_or(OTHERS), colored),
    }
}

/// Draws lines with a legend below.
///
/// # Errors
/// If the figure cannot be drawn.
pub fn lines(figure: &Lines<'_>) -> Result<Figure> {
    let styled: Vec<(&Line, RGBColor, usize)> = {
        let one = |(i, line)| {
            let (color, marker) = style(&figure.lines, i);
            (line, color, marker)
        };
        figure.lines.iter().enumerate().map(one).collect()
    };
    let named: Vec<_> = styled.iter().filter(|(_, color, _)| *color != OTHERS).collect();
    let others = styled.len() - named.len();
    let entries = named.len() + usize::from(others > 0);
    let height = PLOT + 10 + ROW * entries.div_ceil(COLUMNS) as u32;
    draw(figure.about, (WIDTH, height), |area| {
        let (plot, _) = area.split_vertically(PLOT);
        let points = || figure.lines.iter().flat_map(|l| &l.points);
        let places =
            points().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.0), b.max(p.0)));
        let places = if places.0 < places.1 { places.0..places.1 } else { 0.5..1.5 };
        let values = points()
            .map(|p| p.1)
            .chain(figure.lines.iter().flat_map(|l| &l.band).flat_map(|b| [b.0, b.1]));
        let values = range(values, figure.limits.0, figure.limits.1);
        let (decimals, whole) = (digits(&values), figure.marks);
        let x_digits = if whole { 0 } else { digits(&places) };
        let mut chart = ChartBuilder::on(&plot)
            .margin(10)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(places.clone(), values)?;
        let marks = if whole { ((places.end - places.start) as usize + 1).min(11) } else { 6 };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(SOFT)
            .label_style(text(SOFT, HPos::Center))
            .axis_desc_style(text(INK, HPos::Center))
            .x_labels(marks)
            .y_labels(6)
            .x_desc(figure.axes.0)
            .y_desc(figure.axes.1)
            .x_label_formatter(&|v| format!("{v:.x_digits$}"))
            .y_label_formatter(&|v| format!("{v:.decimals$}"))
            .draw()?;
        // The most important lines lie on top.
        for (line, color, marker) in styled.iter().rev() {
            let band: Vec<(f64, f64)> =
                line.points.iter().zip(&line.band).map(|(p, b)| (p.0, b.0)).collect();
            let back = line.points.iter().zip(&line.band).rev().map(|(p, b)| (p.0, b.1));
            if *color != OTHERS && !band.is_empty() {
                chart.draw_series([Polygon::new(
                    band.into_iter().chain(back).collect::<Vec<_>>(),
                    color.mix(0.18).filled(),
                )])?;
            }
            chart.draw_series([PathElement::new(line.points.clone(), color.stroke_width(2))])?;
            if line.points.len() <= 50 && *color != OTHERS {
                line.points
                    .iter()
                    .try_for_each(|p| sign(area, chart.backend_coord(p), *marker, *color))?;
            }
        }
        for (i, (line, color, marker)) in named.iter().enumerate() {
            entry(area, i, &line.name, *color, Some(*marker))?;
        }
        if others > 0 {
            entry(area, named.len(), &format!("{others} others"), OTHERS, None)?;
        }
        Ok(())
    })
}

/// An entry of the legend.
fn entry(
    area: &Area<'_>,
    i: usize,
    name: &str,
    color: RGBColor,
    marker: Option<usize>,
) -> Result<(), Box<dyn std::error::Error>> {
    let column = (WIDTH as usize - 40) / COLUMNS;
    let (x, y) = (
        (24 + column * (i % COLUMNS)) as i32,
        (PLOT as usize + ROW as usize * (i / COLUMNS) + 12) as i32,
    );
    area.draw(&PathElement::new(vec![(x, y), (x + 24, y)], color.stroke_width(2)))?;
    if let Some(marker) = marker {
        sign(area, (x + 12, y), marker, color)?;
    }
    // 7.5 pixels are the mean width of a letter of this size.
    let short = shorten(name, ((column - 34) as f64 / 7.5) as usize);
    area.draw(&Text::new(short, (x + 30, y), text(INK, HPos::Left)))?;
    Ok(())
}

/// A name of at most so many letters.
pub(super) fn shorten(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        name.to_owned()
    } else {
        name.chars().take(most.saturating_sub(1)).chain(['…']).collect()
    }
}

/// Draws the sign of a series, so that colour is not all that tells it apart.
fn sign(
    area: &Area<'_>,
    at: (i32, i32),
    kind: usize,
    color: RGBColor,
) -> Result<(), Box<dyn std::error::Error>> {
    let (x, y) = at;
    match kind {
        0 => area.draw(&Circle::new(at, 4, color.filled())),
        1 => area.draw(&TriangleMarker::new(at, 5, color.filled())),
        2 => area.draw(&Rectangle::new([(x - 3, y - 3), (x + 4, y + 4)], color.filled())),
        3 => area.draw(&Cross::new(at, 4, color.stroke_width(2))),
        4 => area.draw(&Circle::new(at, 4, color.stroke_width(2))),
        5 => area.draw(&Polygon::new(
            vec![(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y)],
            color.filled(),
        )),
        _ => area.draw(&Rectangle::new([(x - 3, y - 3), (x + 4, y + 4)], color.stroke_width(2))),
    }
    .map_err(Into::into)
}
