//! Heat maps: an accuracy matrix or a confusion matrix.

use cilbench::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Figure, INK, SOFT, draw, text};

/// The cells of a map.
pub struct Cells<'a> {
    /// The figure's name and title.
    pub about: (&'a str, &'a str),
    /// What stands at the columns and at the rows.
    pub axes: (&'a str, &'a str),
    /// (rows, columns), percent; none where there is nothing.
    pub values: Vec<Vec<Option<f64>>>,
    /// What the first place is called: tasks are counted from 1, classes from 0.
    pub first: usize,
}

/// More places than these are put together.
const MOST: usize = 30;
/// Up to so many places each cell shows its number.
const WRITTEN: usize = 10;
const SIDE: u32 = 440;
const LEFT: i32 = 62;
const TOP: i32 = 10;

/// Steps of the scale: cells that look alike are drawn as one.
const STEPS: f64 = 25.0;

/// Draws a map, the first row on top; binned where it has more than 30 places to a side.
///
/// # Errors
/// If the figure cannot be drawn.
pub fn map(cells: &Cells<'_>) -> Result<Figure> {
    let (values, per_bin) = binned(&cells.values);
    let n = values.len().max(values.iter().map(Vec::len).max().unwrap_or(0)).max(1);
    let cell = (f64::from(SIDE) - f64::from(LEFT) - 16.0) / n as f64;
    let at = |i: usize| (i as f64 * cell).round() as i32;
    draw(cells.about, (SIDE, SIDE), |area| {
        for (r, row) in values.iter().enumerate() {
            let level = |v: &Option<f64>| v.map(|v| (v * STEPS / 100.0).round());
            // Runs of one colour are one rectangle.
            let mut c = 0;
            while c < row.len() {
                let written = n <= WRITTEN;
                let same = row[c..]
                    .iter()
                    .take_while(|v| !written && level(v) == level(&row[c]))
                    .count()
                    .max(1);
                if let (Some(step), Some(value)) = (level(&row[c]), row[c]) {
                    let corners =
                        [(LEFT + at(c), TOP + at(r)), (LEFT + at(c + same), TOP + at(r + 1))];
                    area.draw(&Rectangle::new(corners, scale(step / STEPS).filled()))?;
                    if written {
                        let middle =
                            (LEFT + at(c) + (cell / 2.0) as i32, TOP + at(r) + (cell / 2.0) as i32);
                        let ink = if step / STEPS > 0.55 { INK_ON_LIGHT } else { INK_ON_DARK };
                        area.draw(&Text::new(
                            format!("{value:.0}"),
                            middle,
                            text(ink, HPos::Center),
                        ))?;
                    }
                }
                c += same;
            }
        }
        marks(area, cells, (n, per_bin), cell)
    })
}

/// Text on light and on dark cells. They are no colours of the page: cells do not change with it.
const INK_ON_LIGHT: RGBColor = RGBColor(0x10, 0x10, 0x10);
const INK_ON_DARK: RGBColor = RGBColor(0xfe, 0xfe, 0xfe);

/// The axes' marks and names.
fn marks(
    area: &super::canvas::Area<'_>,
    cells: &Cells<'_>,
    (n, per_bin): (usize, usize),
    cell: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let end = TOP + (n as f64 * cell) as i32;
    let every = n.div_ceil(10);
    for i in (0..n).step_by(every) {
        let middle = ((i as f64 + 0.5) * cell) as i32;
        let name = (cells.first + i * per_bin).to_string();
        area.draw(&Text::new(name.clone(), (LEFT + middle, end + 14), text(SOFT, HPos::Center)))?;
        area.draw(&Text::new(name, (LEFT - 8, TOP + middle), text(SOFT, HPos::Right)))?;
    }
    let middle = (n as f64 * cell / 2.0) as i32;
    area.draw(&Text::new(
        cells.axes.0.to_owned(),
        (LEFT + middle, end + 36),
        text(INK, HPos::Center),
    ))?;
    let up = text(INK, HPos::Center).transform(FontTransform::Rotate270);
    area.draw(&Text::new(cells.axes.1.to_owned(), (14, TOP + middle), up))?;
    Ok(())
}

/// Means over squares of places, so that at most [`MOST`] are left on a side.
fn binned(values: &[Vec<Option<f64>>]) -> (Vec<Vec<Option<f64>>>, usize) {
    let n = values.len().max(values.iter().map(Vec::len).max().unwrap_or(0));
    let per_bin = n.div_ceil(MOST).max(1);
    let mean = |rows: &[Vec<Option<f64>>], c: usize| {
        let inside = rows.iter().flat_map(|row| row.iter().skip(c).take(per_bin)).flatten();
        let (sum, n) = inside.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
        (n > 0).then(|| sum / n as f64)
    };
    let rows = values.chunks(per_bin).map(|rows| {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0);
        (0..width).step_by(per_bin).map(|c| mean(rows, c)).collect()
    });
    (rows.collect(), per_bin)
}

/// The colour of a share from 0 to 1: cividis (Nuñez et al. 2018), which is even for every colour
/// vision and in grey.
fn scale(share: f64) -> RGBColor {
    const STOPS: [(u8, u8, u8); 6] = [
        (0, 34, 78),
        (53, 69, 108),
        (102, 105, 112),
        (148, 142, 119),
        (200, 184, 102),
        (254, 232, 56),
    ];
    let place = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let (low, part) = (
        (place as usize).min(STOPS.len() - 2),
        place - (place as usize).min(STOPS.len() - 2) as f64,
    );
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    let (a, b) = (STOPS[low], STOPS[low + 1]);
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_maps_are_binned_and_stay_small() {
        let values: Vec<Vec<Option<f64>>> =
            (0..345).map(|r| (0..345).map(|c| Some(((r * c) % 101) as f64)).collect()).collect();
        let (small, per_bin) = binned(&values);
        assert_eq!((small.len(), small[0].len(), per_bin), (29, 29, 12));
        let first: f64 =
            (0..12).flat_map(|r| (0..12).map(move |c| ((r * c) % 101) as f64)).sum::<f64>() / 144.0;
        assert!((small[0][0].expect("a value") - first).abs() < 1e-9);
        let figure =
            map(&Cells { about: ("a", "b"), axes: ("c", "d"), values, first: 0 }).expect("figure");
        assert!(figure.svg.len() < 60_000, "{}", figure.svg.len());
        assert_eq!((scale(0.0), scale(1.0)), (RGBColor(0, 34, 78), RGBColor(254, 232, 56)));
    }
}
