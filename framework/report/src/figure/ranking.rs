//! The ranking: one row for each method, its value with an interval, and every run as a dot.

use cilbench::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Figure, GRID, INK, SERIES, SOFT, digits, draw, range, text};
use super::lines::shorten;

/// A row.
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its 95 % interval, if there is one.
    pub interval: Option<(f64, f64)>,
    /// The values of its runs.
    pub runs: Vec<f64>,
    /// Whether it is the best or was not told apart from it.
    pub best: bool,
    /// Whether it is a bound.
    pub bound: bool,
}

const ROW: u32 = 26;
const NAMES: u32 = 170;
const WIDTH: u32 = 520;

/// Draws a ranking, the first row on top.
///
/// # Errors
/// If the figure cannot be drawn.
pub fn ranking(about: (&str, &str), axis: &str, bars: &[Bar]) -> Result<Figure> {
    let height = ROW * bars.len() as u32 + 60;
    draw(about, (WIDTH, height), |area| {
        let ends = |b: &Bar| b.interval.map_or([b.value, b.value], |(low, high)| [low, high]);
        let all = bars.iter().flat_map(|b| b.runs.iter().copied().chain(ends(b)).chain([b.value]));
        let values = range(all, f64::NEG_INFINITY, f64::INFINITY);
        let decimals = digits(&values);
        let rows = bars.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(44)
            .y_label_area_size(NAMES)
            .build_cartesian_2d(values.clone(), rows..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(SOFT)
            .label_style(text(SOFT, HPos::Center))
            .axis_desc_style(text(INK, HPos::Center))
            .x_labels(6)
            .x_desc(axis)
            .x_label_formatter(&|v| format!("{v:.decimals$}"))
            .draw()?;
        for (i, bar) in bars.iter().enumerate() {
            let y = i as f64 + 0.5;
            let color = if bar.bound {
                SOFT
            } else if bar.best {
                SERIES[1]
            } else {
                SERIES[0]
            };
            if let Some((low, high)) = bar.interval {
                chart.draw_series([PathElement::new(
                    vec![(low, y), (high, y)],
                    color.stroke_width(2),
                )])?;
            }
            if bar.runs.len() > 1 {
                chart.draw_series(
                    bar.runs.iter().map(|v| Circle::new((*v, y), 3, color.mix(0.45).filled())),
                )?;
            }
            let filled = if bar.bound { color.stroke_width(2) } else { color.filled() };
            chart.draw_series([Circle::new((bar.value, y), 5, filled)])?;
            let (_, pixel) = chart.backend_coord(&(values.start, y));
            // Names end where the axis begins; 7.5 pixels are the mean width of a letter.
            let name = shorten(&bar.name, (NAMES as f64 / 7.5) as usize - 2);
            area.draw(&Text::new(name, (NAMES as i32, pixel), text(INK, HPos::Right)))?;
        }
        Ok(())
    })
}
