//! Tables as a page of its own.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::output::MARK;
use crate::table::{Cell, Column, Mark, Table};

/// The style of tables and text, light and dark, on a phone and on paper.
pub(crate) const STYLE: &str = include_str!("../style.css");

pub(super) fn html(tables: &[Table]) -> String {
    let page = html! {
        (DOCTYPE)
        (PreEscaped(format!("<!-- {MARK} leaderboard -->")))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Leaderboard" }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { "Leaderboard" }
                @for table in tables { section { h2 { (table.title) } (table_of(table)) } }
            } }
        }
    };
    page.into_string()
}

/// A table with its caption.
pub(crate) fn table_of(table: &Table) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(table.title) { table {
            thead { tr { @for column in &table.columns { th.text[column.is_text()] scope="col" title=[about(*column)] {
                (column.heading())
            } } } }
            tbody { @for row in &table.rows { tr {
                @for (cell, column) in row.iter().zip(&table.columns) { td.text[column.is_text()] { (cell_of(cell)) } }
            } } }
        } }
        p.caption { (table.sentences()) }
    }
}

fn about(column: Column) -> Option<String> {
    match column {
        Column::Metric(metric) => {
            let better = if metric.larger { "higher" } else { "lower" };
            Some(format!("{}; {better} is better", metric.about))
        }
        _ => None,
    }
}

fn cell_of(cell: &Cell) -> Markup {
    html! {
        @match cell.mark {
            Mark::Best => strong { (cell.text) },
            Mark::Second => u { (cell.text) },
            Mark::None => (cell.text),
        }
        @if let Some(deviation) = &cell.deviation { span.deviation { " ± " (deviation) } }
    }
}
