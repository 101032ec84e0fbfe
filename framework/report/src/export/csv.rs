//! Comma-separated values.

use cilbench::results::leaderboard::{self, Board, Row};
use cilbench::{Error, Result};

use crate::table::{Column, label, remarks};

/// Every field of every row, or what tells boards apart and the chosen columns. A metric's column
/// is followed by that of its deviation. Numbers have all their digits; what is not there is empty.
pub(super) fn csv(boards: &[Board], columns: Option<&[Column]>) -> Result<Vec<u8>> {
    let Some(columns) = columns else {
        let rows: Vec<Row> = boards.iter().flat_map(|b| b.rows.clone()).collect();
        return leaderboard::csv(&rows);
    };
    let failed =
        |e: &dyn std::fmt::Display| Error::Protocol(format!("the CSV cannot be written: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header(columns)).map_err(|e| failed(&e))?;
    for board in boards {
        for row in &board.rows {
            writer.write_record(record(row, &board.rows, columns)).map_err(|e| failed(&e))?;
        }
    }
    writer.into_inner().map_err(|e| failed(&e))
}

fn header(columns: &[Column]) -> Vec<String> {
    let mut names: Vec<String> =
        crate::output::CSV_START.trim_end_matches(',').split(',').map(str::to_owned).collect();
    // The backbone is among the first columns already.
    for column in columns.iter().filter(|c| !matches!(c, Column::Backbone)) {
        let name = column.name().replace('-', "_");
        let deviation = matches!(column, Column::Metric(_)).then(|| format!("{name}_std"));
        names.push(name);
        names.extend(deviation);
    }
    names
}

fn record(row: &Row, board: &[Row], columns: &[Column]) -> Vec<String> {
    let mut cells = vec![
        row.scenario.clone(),
        row.data_id.clone(),
        row.backbone.clone(),
        row.weight_hash.clone(),
    ];
    let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
    for column in columns {
        match column {
            Column::Backbone => {}
            Column::Rank => cells.push(row.rank.map_or(String::new(), |r| r.to_string())),
            Column::Method => cells.push(label(row, board)),
            Column::Configuration => cells.push(row.config_hash.clone()),
            Column::Seeds => cells.push(row.n_seeds.to_string()),
            Column::Orders => cells.push(row.n_orders.to_string()),
            Column::Interval => cells.push(number(row.ci95)),
            Column::Worst => cells.push(number(row.worst)),
            Column::P => cells.push(number(row.p_best)),
            Column::Remarks => cells.push(remarks(row)),
            Column::Metric(metric) => {
                let statistics = row.statistics.get(metric.name);
                cells.extend([
                    number(statistics.map(|s| s.mean)),
                    number(statistics.and_then(|s| s.std)),
                ]);
            }
        }
    }
    cells
}
