//! Tables in GitHub's Markdown.

use std::fmt::Write;

use crate::output::MARK;
use crate::table::{Cell, Mark, Table};

pub(super) fn markdown(tables: &[Table]) -> String {
    let mut out = format!("<!-- {MARK} leaderboard -->\n");
    for table in tables {
        let _ = write!(out, "\n### {}\n\n", table.title);
        let heads: Vec<String> = table.columns.iter().map(|c| escape(c.heading())).collect();
        let rules: Vec<&str> =
            table.columns.iter().map(|c| if c.is_text() { "---" } else { "--:" }).collect();
        let _ = writeln!(out, "| {} |\n| {} |", heads.join(" | "), rules.join(" | "));
        for row in &table.rows {
            let _ = writeln!(out, "| {} |", row.iter().map(cell).collect::<Vec<_>>().join(" | "));
        }
        let _ = write!(out, "\n{}\n", table.sentences());
    }
    out
}

fn cell(cell: &Cell) -> String {
    let text = escape(&cell.text);
    let text = match cell.mark {
        Mark::None => text,
        Mark::Best => format!("**{text}**"),
        Mark::Second => format!("<ins>{text}</ins>"),
    };
    cell.deviation.as_ref().map_or(text.clone(), |d| format!("{text} ± {d}"))
}

/// Characters that would be read as markup.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if "\\|*_<>`[]".contains(c) {
            out.push('\\');
        }
        out.push(if c == '\n' { ' ' } else { c });
    }
    out
}
