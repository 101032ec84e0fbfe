//! Every board as JSON.

use cilbench::results::leaderboard::Board;
use cilbench::{Error, Result};
use serde_json::{Value, json};

use crate::output::MARK;
use crate::table::title;

/// Every field of every row with its statistics, and all pairs that were tested.
pub(super) fn json(boards: &[Board]) -> Result<Vec<u8>> {
    let failed = |e: serde_json::Error| Error::Protocol(format!("the JSON cannot be written: {e}"));
    let boards: Vec<Value> = boards.iter().map(board).collect::<Result<_, _>>().map_err(failed)?;
    // The mark comes first, where it is looked for.
    let mut text = format!("{{\n\"generator\": \"{MARK}\",\n\"boards\": ");
    text += &serde_json::to_string_pretty(&boards).map_err(failed)?;
    text += "\n}\n";
    Ok(text.into_bytes())
}

fn board(board: &Board) -> Result<Value, serde_json::Error> {
    let rows: Vec<Value> = board
        .rows
        .iter()
        .map(|row| {
            let mut value = serde_json::to_value(row)?;
            value["statistics"] = serde_json::to_value(&row.statistics)?;
            Ok(value)
        })
        .collect::<Result<_, serde_json::Error>>()?;
    let tests = board.significance.as_ref();
    Ok(json!({
        "title": title(board),
        "test": tests.and_then(|s| s.caption()),
        "pairs": tests.map(|s| &s.pairs),
        "untested": board.untested,
        "rows": rows,
    }))
}
