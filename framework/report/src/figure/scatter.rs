//! Cost against accuracy, with the Pareto front.

use cilbench::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Figure, GRID, INK, OTHERS, SERIES, SOFT, digits, draw, range, text};

/// A method in the figure.
pub struct Dot {
    /// Its name.
    pub name: String,
    /// Its cost; what costs nothing is left out.
    pub cost: f64,
    /// Its value.
    pub value: f64,
    /// Whether it is a bound, which is shown and not on the front.
    pub bound: bool,
}

/// A figure of costs.
pub struct Scatter<'a> {
    /// The figure's name and title.
    pub about: (&'a str, &'a str),
    /// What stands at the axes.
    pub axes: (&'a str, &'a str),
    /// The methods.
    pub dots: Vec<Dot>,
}

const SIZE: (u32, u32) = (520, 360);

/// The places of the dots that no other beats in both cost and value, by rising cost.
pub fn front(dots: &[Dot]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..dots.len()).filter(|i| !dots[*i].bound).collect();
    order.sort_by(|a, b| {
        dots[*a].cost.total_cmp(&dots[*b].cost).then(dots[*b].value.total_cmp(&dots[*a].value))
    });
    let mut best = f64::NEG_INFINITY;
    order.retain(|i| {
        let better = dots[*i].value > best;
        best = best.max(dots[*i].value);
        better
    });
    order
}

/// Draws dots over a logarithmic axis of cost.
///
/// # Errors
/// If the figure cannot be drawn.
pub fn scatter(figure: &Scatter<'_>) -> Result<Figure> {
    draw(figure.about, SIZE, |area| {
        let costs = || figure.dots.iter().map(|d| d.cost.log10());
        let (low, high) =
            costs().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        // Room at the right for names; something to see where all cost the same.
        let room = ((high - low) * 0.06).max(0.05);
        let costs = low - room..high + 4.0 * room;
        let values = range(figure.dots.iter().map(|d| d.value), f64::NEG_INFINITY, f64::INFINITY);
        let (decimals, bottom) = (digits(&values), values.start);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(costs.clone(), values.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(SOFT)
            .label_style(text(SOFT, HPos::Center))
            .axis_desc_style(text(INK, HPos::Center))
            .x_labels(0)
            .y_labels(6)
            .x_desc(figure.axes.0)
            .y_desc(figure.axes.1)
            .y_label_formatter(&|v| format!("{v:.decimals$}"))
            .draw()?;
        for mark in marks(&costs) {
            let x = mark.log10();
            chart.draw_series([PathElement::new(vec![(x, bottom), (x, values.end)], GRID)])?;
            let (x, y) = chart.backend_coord(&(x, bottom));
            area.draw(&Text::new(short(mark), (x, y + 14), text(SOFT, HPos::Center)))?;
        }
        let front = front(&figure.dots);
        let steps = front.iter().map(|i| (figure.dots[*i].cost.log10(), figure.dots[*i].value));
        chart.draw_series([PathElement::new(steps.collect::<Vec<_>>(), OTHERS.stroke_width(2))])?;
        let mut taken = Vec::new();
        for (i, dot) in figure.dots.iter().enumerate() {
            let on_front = front.contains(&i);
            let color = match (dot.bound, on_front) {
                (true, _) => SOFT,
                (false, true) => SERIES[1],
                (false, false) => SERIES[0],
            };
            let filled = if dot.bound { color.stroke_width(2) } else { color.filled() };
            chart.draw_series([Circle::new((dot.cost.log10(), dot.value), 5, filled)])?;
            taken.push(chart.backend_coord(&(dot.cost.log10(), dot.value)));
        }
        names(area, &figure.dots, &taken)
    })
}

/// The marks of a logarithmic axis: of 1, 2 and 5 times the powers of ten at most seven, evenly.
fn marks(logarithms: &std::ops::Range<f64>) -> Vec<f64> {
    let within = |v: &f64| logarithms.contains(&v.log10());
    let powers = logarithms.start.floor() as i32..=logarithms.end.ceil() as i32;
    for steps in
        [&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0][..], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]]
    {
        let all = powers.clone().flat_map(|p| steps.iter().map(move |s| s * 10f64.powi(p)));
        let all: Vec<f64> = all.filter(within).collect();
        if all.len() <= 7 {
            return all;
        }
    }
    powers.step_by(3).map(|p| 10f64.powi(p)).filter(within).collect()
}

/// Writes each dot's name beside it, where it covers neither a dot nor another name.
fn names(
    area: &super::canvas::Area<'_>,
    dots: &[Dot],
    at: &[(i32, i32)],
) -> Result<(), Box<dyn std::error::Error>> {
    let mut taken: Vec<[i32; 4]> = at.iter().map(|(x, y)| [x - 6, y - 6, x + 6, y + 6]).collect();
    for (dot, (x, y)) in dots.iter().zip(at) {
        let width = (dot.name.chars().count() as f64 * 7.6) as i32;
        let places = [
            (9, 0),
            (-9 - width, 0),
            (9, -13),
            (9, 13),
            (-9 - width, -13),
            (-9 - width, 13),
            (-width / 2, -17),
            (-width / 2, 17),
        ];
        let free = places.into_iter().find_map(|(dx, dy)| {
            let rect = [x + dx, y + dy - 7, x + dx + width, y + dy + 7];
            let inside = rect[0] > 60
                && rect[2] < SIZE.0 as i32
                && rect[1] > 4
                && rect[3] < SIZE.1 as i32 - 50;
            let clear = taken
                .iter()
                .all(|t| rect[2] < t[0] || t[2] < rect[0] || rect[3] < t[1] || t[3] < rect[1]);
            (inside && clear).then_some((rect, (x + dx, y + dy)))
        });
        // A name without a free place is left to the table.
        if let Some((rect, at)) = free {
            taken.push(rect);
            area.draw(&Text::new(dot.name.clone(), at, text(INK, HPos::Left)))?;
        }
    }
    Ok(())
}

/// A number in few letters.
fn short(v: f64) -> String {
    match v {
        v if v >= 10.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}").trim_end_matches(".0").to_owned(),
        v => format!("{v:.3}").trim_end_matches('0').to_owned(),
    }
}
