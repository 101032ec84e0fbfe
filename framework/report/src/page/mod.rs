//! `cilbench report`: one page from run folders, which needs neither a network nor JavaScript.

mod figures;
mod group;
mod run;
mod settings;
mod view;

use cilbench::Result;
use cilbench::results::leaderboard::{Board, Options, boards};
use cilbench::results::{Found, Status};

use crate::figure::Figure;
use group::Group;
pub(crate) use group::slug;
pub(crate) use run::log;

/// A report: the page and its figures.
pub struct Report {
    /// The page.
    pub html: String,
    /// Every figure on it, for files.
    pub figures: Vec<Figure>,
}

/// What a report says before its groups.
struct Remarks {
    /// Warnings over all runs.
    warnings: Vec<String>,
    /// The number of runs that take part.
    runs: usize,
}

/// The report of some runs. `unread` says what could not be read. Runs of different data ids or
/// weights are shown in groups of their own.
///
/// # Errors
/// If a figure cannot be drawn.
pub fn report(found: &[Found], unread: &[String]) -> Result<Report> {
    let boards = boards(found, "last", &Options { gather_orders: false, test: true })?;
    let groups: Vec<Group<'_>> = boards.iter().map(|board| Group::of(board, found)).collect();
    let mut parts = Vec::new();
    let mut all = Vec::new();
    for group in &groups {
        let of_group = figures::of_group(group)?;
        let of_members: Vec<Vec<Figure>> =
            group.members.iter().map(|m| figures::of_member(group, m)).collect::<Result<_>>()?;
        parts.push(view::group(group, &of_group, &of_members));
        all.extend(of_group);
        all.extend(of_members.into_iter().flatten());
    }
    let html = view::page(&groups, &parts, &remarks(found, &boards, unread));
    Ok(Report { html, figures: all })
}

fn remarks(found: &[Found], boards: &[Board], unread: &[String]) -> Remarks {
    let mut warnings: Vec<String> =
        unread.iter().map(|e| format!("Left out, it cannot be read: {e}")).collect();
    for run in found {
        let path = run.path.display();
        if run.record.status != Status::Finished {
            let (done, all) = (run.record.tasks.len(), run.record.identity.scenario.tasks.len());
            let status = format!("{:?}", run.record.status).to_lowercase();
            let error = run.record.error.as_ref().map_or(String::new(), |e| format!(": {e}"));
            warnings.push(format!("Not finished ({status}, {done} of {all} tasks): {path}{error}"));
        }
        if !run.altered.is_empty() {
            warnings.push(format!(
                "Altered since it was written, and not ranked: {path} ({})",
                run.altered.join(", ")
            ));
        }
    }
    let own: std::collections::BTreeSet<&String> =
        found.iter().flat_map(|f| &f.record.warnings).collect();
    warnings.extend(own.into_iter().cloned());
    let runs = boards.iter().flat_map(|b| &b.rows).map(|r| r.paths.len()).sum();
    Remarks { warnings, runs }
}

#[cfg(test)]
mod test;
