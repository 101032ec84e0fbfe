//! The figures of a report.

use cilbench::Result;

use super::group::{Group, Member, mean};
use crate::figure::{
    Bar, Cells, Dot, Figure, Line, Lines, Scatter, bars, lines, map, ranking, scatter,
};

/// The figures that show all rows of a group beside each other.
pub(super) fn of_group(group: &Group<'_>) -> Result<Vec<Figure>> {
    let mut figures = vec![places(group)?, over_tasks(group)?];
    figures.extend(forgetting(group)?);
    figures.extend(drift(group)?);
    figures.extend(costs(group)?);
    Ok(figures)
}

/// The figures of one row.
pub(super) fn of_member(group: &Group<'_>, member: &Member<'_>) -> Result<Vec<Figure>> {
    let name = format!(
        "{}-{}-{}",
        group.slug,
        super::group::slug(&member.row.method),
        member.row.config_hash
    );
    let mut figures = Vec::new();
    figures.push(map(&Cells {
        about: (&format!("{name}-matrix"), &format!("{}: accuracy matrix, %", member.name)),
        axes: ("test images of task", "after task"),
        values: member.matrix(),
        first: 1,
    })?);
    if let Some(counts) = &member.confusion {
        let title = format!("{}: predicted classes, % of each true class", member.name);
        figures.push(map(&Cells {
            about: (&format!("{name}-confusion"), &title),
            axes: ("predicted class", "true class"),
            values: shares(counts),
            first: 0,
        })?);
    }
    let title = format!("{}: accuracy of each class after the last task", member.name);
    let classes = member.by_class();
    figures.push(bars(
        (&format!("{name}-classes"), &title),
        ("class, as the model numbers it", "accuracy, %"),
        &classes,
    )?);
    if !member.losses.is_empty() {
        let line = |l: &super::run::Loss| Line {
            name: l.name.clone(),
            points: l.points.clone(),
            band: vec![],
            bound: false,
        };
        let seed = member.runs.first().map_or(0, |r| r.record.identity.seed);
        figures.push(lines(&Lines {
            about: (&format!("{name}-losses"), &format!("{}: losses of seed {seed}", member.name)),
            axes: ("step, over all tasks", "loss"),
            limits: (f64::NEG_INFINITY, f64::INFINITY),
            marks: false,
            lines: member.losses.iter().map(line).collect(),
        })?);
    }
    Ok(figures)
}

fn sound<'a>(group: &'a Group<'a>) -> impl Iterator<Item = &'a Member<'a>> {
    group.members.iter().filter(|m| m.is_sound())
}

/// The ranking by last accuracy, with intervals.
fn places(group: &Group<'_>) -> Result<Figure> {
    let intervals =
        group.board.significance.as_ref().map(|s| s.intervals.clone()).unwrap_or_default();
    let bar = |(i, m): (usize, &Member<'_>)| Bar {
        name: m.name.clone(),
        value: m.row.last,
        interval: intervals.get(i).copied().flatten(),
        runs: m.runs.iter().map(|r| r.record.summary.last).collect(),
        best: m.row.best,
        bound: m.row.bound,
    };
    let bars: Vec<Bar> =
        group.members.iter().enumerate().filter(|(_, m)| m.is_sound()).map(bar).collect();
    let title = "Last accuracy with 95 % bootstrap intervals; one small dot per seed";
    ranking((&format!("{}-ranking", group.slug), title), "last accuracy, %", &bars)
}

/// A line for each row through the mean over its runs of one value per task.
fn per_task(
    group: &Group<'_>,
    value: impl Fn(&cilbench::results::Record, usize) -> Option<f64>,
) -> Vec<Line> {
    let line = |m: &Member<'_>| {
        let tasks = m.runs.iter().map(|r| r.record.tasks.len()).max().unwrap_or(0);
        let (mut points, mut band) = (Vec::new(), Vec::new());
        for t in 0..tasks {
            let all: Vec<f64> = m.runs.iter().filter_map(|r| value(&r.record, t)).collect();
            let Some(mean) = mean(all.iter().copied()) else { continue };
            points.push(((t + 1) as f64, mean));
            let ends = all
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
            band.push(ends);
        }
        let band = if m.runs.len() > 1 { band } else { Vec::new() };
        Line { name: m.name.clone(), points, band, bound: m.row.bound }
    };
    sound(group).map(line).filter(|l| !l.points.is_empty()).collect()
}

fn over_tasks(group: &Group<'_>) -> Result<Figure> {
    let title = "Accuracy on all classes so far; bands reach from the lowest to the highest seed";
    lines(&Lines {
        about: (&format!("{}-accuracy", group.slug), title),
        axes: ("tasks learned", "accuracy, %"),
        limits: (0.0, 100.0),
        marks: true,
        lines: per_task(group, |record, t| Some(record.tasks.get(t)?.scores.accuracy)),
    })
}

/// What each task lost since its best; nothing for a single task.
fn forgetting(group: &Group<'_>) -> Result<Option<Figure>> {
    let lost = |record: &cilbench::results::Record, i: usize| {
        let (last, before) = record.accuracy_matrix.split_last()?;
        let best = before.iter().filter_map(|row| row.get(i)).copied().reduce(f64::max)?;
        Some(best - last.get(i)?)
    };
    let all = per_task(group, lost);
    if all.is_empty() {
        return Ok(None);
    }
    let title = "Forgetting: what each task lost at the end since its best accuracy";
    lines(&Lines {
        about: (&format!("{}-forgetting", group.slug), title),
        axes: ("task", "forgetting, points"),
        limits: (-100.0, 100.0),
        marks: true,
        lines: all,
    })
    .map(Some)
}

/// Relation drift, of methods whose runs measured it.
fn drift(group: &Group<'_>) -> Result<Option<Figure>> {
    let all = per_task(group, |record, t| record.tasks.get(t)?.relation_drift);
    if all.is_empty() {
        return Ok(None);
    }
    lines(&Lines {
        about: (&format!("{}-drift", group.slug), "Relation drift of the features over each task"),
        axes: ("task", "relation drift"),
        limits: (0.0, f64::INFINITY),
        marks: true,
        lines: all,
    })
    .map(Some)
}

/// Cost against last accuracy. Seconds and memory are shown within the machine that most rows ran
/// on.
fn costs(group: &Group<'_>) -> Result<Vec<Figure>> {
    let machine = common_machine(group);
    let mut figures = Vec::new();
    for (name, axis, anywhere) in [
        ("seconds", "training, seconds", false),
        ("memory", "largest memory, MB", false),
        ("carried", "carried from task to task, MB", true),
    ] {
        let dot = |m: &Member<'_>| {
            let cost = m.row.statistics.get(name)?.mean;
            Some(Dot { name: m.row.method.clone(), cost, value: m.row.last, bound: m.row.bound })
        };
        let here = |m: &&Member<'_>| anywhere || Some(m.row.machine.as_str()) == machine.as_deref();
        let dots: Vec<Dot> =
            sound(group).filter(here).filter_map(dot).filter(|d| d.cost > 0.0).collect();
        if dots.is_empty() {
            continue;
        }
        let on =
            machine.as_deref().filter(|_| !anywhere).map_or(String::new(), |m| format!("; {m}"));
        let title = format!("Cost against last accuracy, with the Pareto front{on}");
        figures.push(scatter(&Scatter {
            about: (&format!("{}-cost-{name}", group.slug), &title),
            axes: (axis, "last accuracy, %"),
            dots,
        })?);
    }
    Ok(figures)
}

/// The machine that most rows ran on.
pub(super) fn common_machine(group: &Group<'_>) -> Option<String> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    sound(group).for_each(|m| *counts.entry(&m.row.machine).or_default() += 1);
    counts.into_iter().max_by_key(|(_, n)| *n).map(|(machine, _)| machine.to_owned())
}

/// Counts as percent of their row; none where there is none, so that an empty cell stays empty.
fn shares(counts: &[Vec<u64>]) -> Vec<Vec<Option<f64>>> {
    let row = |row: &Vec<u64>| {
        let sum = row.iter().sum::<u64>().max(1) as f64;
        row.iter().map(|n| Some(100.0 * *n as f64 / sum)).collect()
    };
    counts.iter().map(row).collect()
}
