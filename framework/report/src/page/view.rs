//! The page's text and tables.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Remarks;
use super::figures::common_machine;
use super::group::{Group, Member};
use super::run::command;
use super::settings::settings;
use crate::export::{STYLE, table_of};
use crate::figure::Figure;
use crate::output::MARK;
use crate::table::{Column, Table, p_value, title};

/// The whole page.
pub(super) fn page(groups: &[Group<'_>], parts: &[Markup], remarks: &Remarks) -> String {
    let (runs, boards) = (remarks.runs, groups.len());
    let name = match groups {
        [one] => {
            one.board.rows.first().map_or("cilbench report".to_owned(), |r| r.scenario.clone())
        }
        _ => "cilbench report".to_owned(),
    };
    let page = html! {
        (DOCTYPE)
        (PreEscaped(format!("<!-- {MARK} report -->")))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // An address of nothing: browsers ask for an icon otherwise.
                link rel="icon" href="data:,";
                title { (name) }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { (name) }
                p.facts {
                    (count(runs, "finished run")) " in " (count(boards, "group")) ", by cilbench "
                    (env!("CARGO_PKG_VERSION")) ". Accuracies are in percent."
                }
                (warnings(&remarks.warnings))
                @if groups.len() > 1 { nav {
                    p { "Runs of different data or weights are not compared with each other:" }
                    ul { @for group in groups { li { a href={ "#" (group.slug) } { (title(group.board)) } } } }
                } }
                @if groups.is_empty() { p.lead { "There is no finished run among these folders." } }
                @for part in parts { (part) }
            } }
        }
    };
    page.into_string()
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn warnings(all: &[String]) -> Markup {
    html! {
        @if !all.is_empty() { div.warnings {
            strong { (count(all.len(), "warning")) }
            ul { @for warning in all { li { (warning) } } }
        } }
    }
}

/// A group's part of the page.
pub(super) fn group(group: &Group<'_>, figures: &[Figure], of_members: &[Vec<Figure>]) -> Markup {
    let Some(first) = group.board.rows.first() else { return html! {} };
    let names = [
        "rank",
        "method",
        "seeds",
        "last",
        "avg",
        "forgetting",
        "p",
        "seconds",
        "carried",
        "remarks",
    ];
    let columns: Vec<Column> = names.iter().filter_map(|n| Column::find(n).ok()).collect();
    let more = [
        "method",
        "last-tasks",
        "avg-tasks",
        "bwt",
        "plasticity",
        "intransigence",
        "task-id",
        "task-aware",
        "top-5",
        "ece",
        "drift",
        "memory",
        "trained",
        "images",
    ];
    let more: Vec<Column> = more.iter().filter_map(|n| Column::find(n).ok()).collect();
    let mut second = Table::of(group.board, &more);
    second.caption.clear();
    html! {
        section id=(group.slug) {
            h2 { (first.scenario) ", " (first.backbone) }
            p.facts {
                "Data id " code { (first.data_id) } ", weights " code { (first.weight_hash) } ". "
                (first.train_images) " training and " (first.test_images) " test images of " (first.image_size)
                " px, class order " (first.class_order) "."
            }
            (headline(group))
            (table_of(&Table::of(group.board, &columns)))
            h3 { "Further metrics" }
            (table_of(&second))
            h3 { "Side by side" }
            (gallery(figures))
            (machines(group))
            (own_settings(group))
            h3 { "Each method" }
            @for (member, figures) in group.members.iter().zip(of_members) { (self::member(group, member, figures)) }
        }
    }
}

/// Which row is the best, how sure that is, and at what cost.
fn headline(group: &Group<'_>) -> Markup {
    let rows = &group.board.rows;
    let competing = rows.iter().filter(|r| r.altered.is_empty() && !r.bound);
    let Some((at, best)) = rows.iter().enumerate().find(|(_, r)| r.altered.is_empty() && !r.bound)
    else {
        return html! {};
    };
    let interval =
        group.board.significance.as_ref().and_then(|s| s.intervals.get(at).copied().flatten());
    let alike: Vec<&str> = group
        .members
        .iter()
        .filter(|m| m.row.best && m.row.last < best.last)
        .map(|m| m.name.as_str())
        .collect();
    let next = competing.clone().find(|r| !r.best);
    html! {
        p.lead {
            strong { (group.members[at].name) } " has the best last accuracy, " (format!("{:.2}", best.last)) " %"
            @if let Some((low, high)) = interval { (format!(" (95 % interval {low:.1} to {high:.1})")) }
            ", after " (format!("{:.0}", best.seconds)) " s of training."
            @if !alike.is_empty() { " Not told apart from it: " (alike.join(", ")) "." }
            @if let Some(next) = next {
                " The next, " (next.method) ", is " (format!("{:.2}", best.last - next.last)) " points behind"
                @if let Some(p) = next.p_best { " (adjusted p " (relation(p)) ")" }
                "."
            }
        }
    }
}

/// A p-value with its sign of relation.
fn relation(p: f64) -> String {
    let text = p_value(p);
    if text.starts_with('<') { text } else { format!("= {text}") }
}

fn gallery(figures: &[Figure]) -> Markup {
    html! { div.figures { @for figure in figures { (one(figure)) } } }
}

fn one(figure: &Figure) -> Markup {
    html! { figure { (PreEscaped(figure.inline())) figcaption { (figure.title) "." } } }
}

/// Which rows are missing from the figures of time and memory.
fn machines(group: &Group<'_>) -> Markup {
    let common = common_machine(group);
    let away =
        group.members.iter().filter(|m| Some(&m.row.machine) != common.as_ref() && m.is_sound());
    let away: Vec<String> = away.map(|m| format!("{} ({})", m.name, m.row.machine)).collect();
    html! {
        @if !away.is_empty() {
            p.caption {
                "Not in the figures of time and memory, which compare within one machine: " (away.join("; ")) "."
            }
        }
    }
}

fn own_settings(group: &Group<'_>) -> Markup {
    let settings = settings(group);
    html! {
        h3 { "Settings" }
        @if !settings.shared.is_empty() { p.facts { "All runs share " (settings.shared.join(", ")) "." } }
        div.scroll tabindex="0" role="region" aria-label="settings" { table {
            thead { tr { th.text scope="col" { "method" } th.text scope="col" { "settings of its own" } } }
            tbody { @for (member, own) in group.members.iter().zip(&settings.own) { tr {
                td.text { (member.name) }
                td.text.wide { (own.join(", ")) }
            } } }
        } }
    }
}

/// A method's own part.
fn member(group: &Group<'_>, member: &Member<'_>, figures: &[Figure]) -> Markup {
    let last = member.row.statistics.get("last").map_or("–".to_owned(), ToString::to_string);
    html! {
        details open[group.members.len() == 1] {
            summary { b { (member.name) } ": " (last) " %, " (count(member.runs.len(), "run")) }
            @if !member.row.altered.is_empty() { (warnings(&[format!("ALTERED: {}", member.row.altered)])) }
            @if !member.missing.is_empty() { (warnings(&member.missing)) }
            div.small { (gallery(figures)) }
            h4 { "Accuracy matrix" }
            (matrix(member))
            h4 { "Commands" }
            @for run in &member.runs { pre { (command(run)) } }
        }
    }
}

/// More tasks than these are left to the figure and to `--export`.
const TABLED: usize = 20;

/// The accuracy matrix as numbers.
fn matrix(member: &Member<'_>) -> Markup {
    let matrix = member.matrix();
    if matrix.len() > TABLED {
        return html! { p.facts { (matrix.len()) " tasks: the numbers are in each run's run.json." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "accuracy matrix of " (member.name) } { table {
            thead { tr { th.text scope="col" { "after task" }
                @for i in 1..=matrix.len() { th scope="col" { (i) } }
            } }
            tbody { @for (t, row) in matrix.iter().enumerate() { tr {
                th.text scope="row" { (t + 1) }
                @for i in 0..matrix.len() {
                    td { @if let Some(Some(v)) = row.get(i) { (format!("{v:.1}")) } }
                }
            } } }
        } }
    }
}
