//! LaTeX tables with booktabs.

use std::fmt::Write;

use crate::output::MARK;
use crate::table::{Cell, Column, Mark, Table};

pub(super) fn latex(tables: &[Table]) -> String {
    let mut out = format!("% {MARK} leaderboard; needs \\usepackage{{booktabs}}\n");
    for table in tables {
        let kinds: String =
            table.columns.iter().map(|c| if c.is_text() { 'l' } else { 'r' }).collect();
        let heads: Vec<String> = table.columns.iter().map(|c| heading(*c)).collect();
        let _ = write!(
            out,
            "\\begin{{table}}\n\\centering\n\\caption{{{}. {}}}\n\\begin{{tabular}}{{@{{}}{kinds}@{{}}}}\n\\toprule\n{} \\\\\n\\midrule\n",
            escape(&table.title),
            escape(&table.sentences()),
            heads.join(" & ")
        );
        for row in &table.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&table.columns)
                .map(|(cell, column)| number(cell, *column))
                .collect();
            let _ = writeln!(out, "{} \\\\", cells.join(" & "));
        }
        out += "\\bottomrule\n\\end{tabular}\n\\end{table}\n";
    }
    out
}

/// The heading, with an arrow that says which way is better.
fn heading(column: Column) -> String {
    let text = escape(column.heading());
    match column {
        Column::Metric(metric) if metric.percent && metric.larger => format!("{text} $\\uparrow$"),
        Column::Metric(metric) if metric.percent => format!("{text} $\\downarrow$"),
        _ => text,
    }
}

fn number(cell: &Cell, column: Column) -> String {
    if column.is_text() || cell.text == "–" || matches!(column, Column::P) {
        return escape(&cell.text);
    }
    let text = match cell.mark {
        Mark::None => cell.text.clone(),
        Mark::Best => format!("\\mathbf{{{}}}", cell.text),
        Mark::Second => format!("\\underline{{{}}}", cell.text),
    };
    cell.deviation.as_ref().map_or(format!("${text}$"), |d| format!("${text} \\pm {d}$"))
}

/// Text for LaTeX, with its special characters.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '±' => out += "$\\pm$",
            '–' => out += "--",
            '<' => out += "$<$",
            '>' => out += "$>$",
            '|' => out += "\\textbar{}",
            '"' => out += "\\textquotedbl{}",
            '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
