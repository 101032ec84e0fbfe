//! Tables of boards: cells with means, deviations and marks, before any format.

mod columns;

use std::collections::BTreeMap;

use cilbench::results::leaderboard::{Board, Metric, Row};

pub use columns::Column;

/// A cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    /// The value or text; `–` where there is none.
    pub text: String,
    /// The standard deviation, where there is one.
    pub deviation: Option<String>,
    /// How the cell stands in its column.
    pub mark: Mark,
}

/// How a cell stands in its column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// Not among the first.
    #[default]
    None,
    /// The best, or not told apart from the best.
    Best,
    /// The next.
    Second,
}

/// A board as a table.
pub struct Table {
    /// What was run: scenario, data id, backbone and weights.
    pub title: String,
    /// What a reader must know, in sentences, but for what bold and underlined numbers are.
    pub caption: Vec<String>,
    /// The columns.
    pub columns: Vec<Column>,
    /// (rows, columns).
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The table of a board.
    pub fn of(board: &Board, columns: &[Column]) -> Self {
        let rows = (0..board.rows.len())
            .map(|i| columns.iter().map(|c| cell(board, i, *c)).collect())
            .collect();
        Self {
            title: title(board),
            caption: caption(board, columns),
            columns: columns.to_vec(),
            rows,
        }
    }
}

impl Table {
    /// The caption of a table whose best numbers are bold and whose second ones are underlined.
    pub fn sentences(&self) -> String {
        let mut says = self.caption.clone();
        if self.rows.iter().flatten().any(|cell| cell.mark != Mark::None) {
            says.push("The best number of a column is bold and the second is underlined; bounds do not compete.".into());
        }
        says.join(" ")
    }
}

/// What all rows of a board have in common.
pub fn title(board: &Board) -> String {
    let Some(first) = board.rows.first() else { return String::new() };
    let weights = first.weight_hash.get(..12).unwrap_or(&first.weight_hash);
    format!(
        "{} (data id {}), {} (weights {weights})",
        first.scenario, first.data_id, first.backbone
    )
}

/// The sentences under a table.
fn caption(board: &Board, columns: &[Column]) -> Vec<String> {
    let Some(first) = board.rows.first() else { return Vec::new() };
    let several = if first.n_orders > 1 { "class orders" } else { "class order" };
    let mut says = vec![format!(
        "{} training and {} test images of {} px, {several} {}.",
        first.train_images, first.test_images, first.image_size, first.class_order
    )];
    if board.rows.iter().any(|r| r.std.is_some()) {
        let over = if first.n_orders > 1 { "class orders" } else { "seeds" };
        says.push(format!("Numbers are mean ± standard deviation over {over}."));
    }
    let tests_shown = columns.iter().any(|c| matches!(c, Column::P) || c.name() == "last");
    if let Some(test) =
        board.significance.as_ref().and_then(|s| s.caption()).filter(|_| tests_shown)
    {
        says.push(format!(
            "{test} Last accuracies that were not told apart from the best are marked like it."
        ));
    }
    if !board.untested.is_empty() && tests_shown {
        says.push(format!("Not tested: {}.", board.untested.join("; ")));
    }
    let machines: std::collections::BTreeSet<&str> =
        board.rows.iter().map(|r| r.machine.as_str()).collect();
    if machines.len() > 1 && columns.iter().any(|c| ["seconds", "memory"].contains(&c.name())) {
        let machines: Vec<&str> = machines.into_iter().collect();
        says.push(format!(
            "Seconds and memory are of different machines and do not compare: {}.",
            machines.join(" | ")
        ));
    }
    says
}

fn cell(board: &Board, i: usize, column: Column) -> Cell {
    let row = &board.rows[i];
    let plain = |text: String| Cell { text, ..Cell::default() };
    let or_dash = |text: Option<String>| plain(text.unwrap_or_else(|| "–".to_owned()));
    match column {
        Column::Rank => or_dash(row.rank.map(|n| n.to_string())),
        Column::Method => plain(label(row, &board.rows)),
        Column::Configuration => plain(row.config_hash.clone()),
        Column::Backbone => plain(row.backbone.clone()),
        Column::Seeds => plain(row.n_seeds.to_string()),
        Column::Orders => plain(row.n_orders.to_string()),
        Column::Interval => or_dash(row.ci95.map(|c| format!("{c:.2}"))),
        Column::Worst => {
            or_dash(row.worst.map(|value| format!("{value:.2} ({})", row.worst_order)))
        }
        Column::P => or_dash(row.p_best.map(p_value)),
        Column::Remarks => plain(remarks(row)),
        Column::Metric(metric) => number(board, i, metric),
    }
}

/// A p-value as text.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

fn number(board: &Board, i: usize, metric: &Metric) -> Cell {
    let row = &board.rows[i];
    let Some(statistics) = row.statistics.get(metric.name) else {
        return Cell { text: "–".to_owned(), ..Cell::default() };
    };
    let digits = metric.digits;
    let competes = row.altered.is_empty() && !row.bound;
    // Costs are not marked: the least is seldom the best.
    let mark = match () {
        () if !metric.percent => Mark::None,
        () if board.best(metric).contains(&i) => Mark::Best,
        () if competes && board.runner_up(metric) == Some(statistics.mean) => Mark::Second,
        () => Mark::None,
    };
    Cell {
        text: format!("{:.digits$}", statistics.mean),
        // Of what does not vary, such as bytes, there is nothing to say.
        deviation: statistics
            .std
            .filter(|s| metric.percent || *s > 0.0)
            .map(|s| format!("{s:.digits$}")),
        mark,
    }
}

/// A row's method, with the hyper-parameters that tell it from other rows of the method.
pub fn label(row: &Row, board: &[Row]) -> String {
    let apart = apart(row, board);
    if apart.is_empty() { row.method.clone() } else { format!("{} ({apart})", row.method) }
}

/// The hyper-parameters in which a row differs from another of the same method on its board, and
/// what else sets it apart.
fn apart(row: &Row, board: &[Row]) -> String {
    let parse = |r: &Row| {
        serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&r.hyper_parameters)
            .unwrap_or_default()
    };
    let others: Vec<&Row> = board.iter().filter(|o| o.method == row.method).collect();
    let configs: Vec<_> = others.iter().map(|o| parse(o)).collect();
    let differs = |(key, value): &(String, serde_json::Value)| {
        configs.iter().any(|o| o.get(key) != Some(value))
    };
    let mut apart: Vec<String> = parse(row)
        .into_iter()
        .filter(differs)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut also = |what: &str, field: fn(&Row) -> &String| {
        if others.iter().any(|o| field(o) != field(row)) {
            apart.push(format!("{what}{}", field(row)));
        }
    };
    also("version ", |r| &r.method_version);
    also("", |r| &r.plugin);
    also("", |r| &r.dtype);
    also("", |r| &r.device);
    apart.join(", ")
}

/// What a reader must know of a row.
pub fn remarks(row: &Row) -> String {
    let remarks = [
        if row.bound { "a bound: sees all images so far".to_owned() } else { String::new() },
        if row.stored_images > 0 {
            format!("keeps {} images", row.stored_images)
        } else {
            String::new()
        },
        if row.altered.is_empty() { String::new() } else { format!("ALTERED: {}", row.altered) },
        if row.audited { "audited".to_owned() } else { String::new() },
        row.plugin.clone(),
        row.warnings.clone(),
    ];
    remarks.into_iter().filter(|r| !r.is_empty()).collect::<Vec<_>>().join("; ")
}
