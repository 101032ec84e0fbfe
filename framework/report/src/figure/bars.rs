//! Bars: one value for each class or task.

use cilbench::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Figure, GRID, INK, SERIES, SOFT, draw, text};

/// Draws a bar from 0 to each value, percent. More than 60 are put together.
///
/// # Errors
/// If the figure cannot be drawn.
pub fn bars(about: (&str, &str), axes: (&str, &str), values: &[f64]) -> Result<Figure> {
    let per_bin = values.len().div_ceil(60).max(1);
    let binned: Vec<f64> =
        values.chunks(per_bin).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect();
    draw(about, (520, 260), |area| {
        let n = binned.len().max(1) as f64;
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(-0.5..n - 0.5, 0.0..100.0)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(SOFT)
            .label_style(text(SOFT, HPos::Center))
            .axis_desc_style(text(INK, HPos::Center))
            .x_labels(binned.len().min(12))
            .y_labels(5)
            .x_desc(axes.0)
            .y_desc(axes.1)
            .y_label_formatter(&|v| format!("{v:.0}"))
            .x_label_formatter(&|v| format!("{:.0}", v * per_bin as f64))
            .draw()?;
        let bar = |(i, v): (usize, &f64)| {
            let x = i as f64;
            Rectangle::new([(x - 0.38, 0.0), (x + 0.38, *v)], SERIES[0].filled())
        };
        chart.draw_series(binned.iter().enumerate().map(bar))?;
        Ok(())
    })
}
