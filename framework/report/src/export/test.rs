use cilbench::results::leaderboard::{Options, boards, find_runs};

use super::*;
use crate::fixture::Made;

/// Three methods over two seeds, and `joint` as a bound by its name alone.
fn some() -> (tempfile::TempDir, Vec<Board>) {
    let folder = tempfile::tempdir().expect("folder");
    for (method, right) in [("a_b", 90), ("c", 60), ("d", 30)] {
        for seed in [0, 1] {
            Made { seed, right: right + seed as usize, ..Made::new(method, right) }
                .write(folder.path());
        }
    }
    let (found, _) = find_runs(folder.path()).expect("find");
    let boards =
        boards(&found, "last", &Options { gather_orders: false, test: true }).expect("boards");
    (folder, boards)
}

fn text(format: Format, boards: &[Board], columns: &[&str]) -> String {
    let names: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
    let columns = (!names.is_empty()).then(|| Column::list(&names).expect("columns"));
    String::from_utf8(render(format, boards, columns.as_deref()).expect("render")).expect("text")
}

#[test]
fn the_ending_says_the_format() {
    for (ending, format) in ENDINGS {
        assert_eq!(Format::of(Path::new(&format!("board.{ending}"))).expect("known"), format);
    }
    for wrong in ["board.xlsx", "board", "csv"] {
        let error = Format::of(Path::new(wrong)).expect_err("unknown").to_string();
        assert!(error.contains(wrong) && error.contains(".tex"), "{error}");
    }
}

#[test]
fn a_csv_has_every_field_or_the_chosen_columns() {
    let (_folder, boards) = some();
    let all = text(Format::Csv, &boards, &[]);
    assert!(all.starts_with(output::CSV_START) && all.lines().count() == 4, "{all}");
    assert!(all.lines().next().expect("header").ends_with("best,machine"), "{all}");
    let few = text(Format::Csv, &boards, &["method", "last", "top-5", "p"]);
    let lines: Vec<&str> = few.lines().collect();
    assert_eq!(
        lines[0],
        "scenario,data_id,backbone,weight_hash,method,last,last_std,top_5,top_5_std,p"
    );
    assert!(
        lines[1].starts_with("five,id-natural,vit-nano,0123456789abcdef,a_b,90.5,0.707"),
        "{few}"
    );
}

#[test]
fn latex_marks_the_best_and_the_second_and_says_which_test() {
    let (_folder, boards) = some();
    let tex = text(Format::Latex, &boards, &["method", "last", "forgetting"]);
    assert!(tex.contains("a\\_b & $\\mathbf{90.50} \\pm 0.71$"), "{tex}");
    assert!(
        tex.contains("c & $\\underline{60.50} \\pm 0.71$") && tex.contains("d & $30.50 \\pm 0.71$"),
        "{tex}"
    );
    assert!(tex.contains("\\toprule") && tex.contains("paired bootstrap (10000 draws"), "{tex}");
    assert!(tex.contains("adjusted by Holm") && tex.contains("last $\\uparrow$"), "{tex}");
}

#[test]
fn markdown_html_and_json_hold_the_same_rows() {
    let (_folder, boards) = some();
    let markdown = text(Format::Markdown, &boards, &["method", "last"]);
    assert!(markdown.contains("| a\\_b | **90.50** ± 0.71 |"), "{markdown}");
    assert!(markdown.contains("<ins>60.50</ins>"), "{markdown}");
    let html = text(Format::Html, &boards, &["method", "last"]);
    assert!(html.contains("<strong>90.50</strong>") && html.contains("<u>60.50</u>"), "{html}");
    assert!(!html.contains("<script") && !html.contains("http"), "{html}");
    let json: serde_json::Value =
        serde_json::from_str(&text(Format::Json, &boards, &[])).expect("JSON");
    let board = &json["boards"][0];
    assert_eq!(
        (&board["rows"][0]["method"], board["pairs"].as_array().map(Vec::len)),
        (&"a_b".into(), Some(3))
    );
    assert_eq!(board["rows"][0]["statistics"]["last"]["n"], 2);
}

#[test]
fn a_record_is_never_overwritten_and_an_earlier_export_is() {
    let (folder, boards) = some();
    let record = folder.path().join("c-natural-0/run.json");
    let before = std::fs::read(&record).expect("read");
    assert!(check(&record).is_err() && export(&record, &boards, None).is_err());
    let predictions = folder.path().join("c-natural-0/predictions/task-0.csv");
    assert!(export(&predictions, &boards, None).is_err());
    assert_eq!(std::fs::read(&record).expect("read"), before);
    for (ending, _) in ENDINGS {
        let path = folder.path().join(format!("board.{ending}"));
        export(&path, &boards, None).expect("new");
        export(&path, &boards, None).expect("again");
    }
}

#[test]
fn gathered_class_orders_show_the_worst() {
    let folder = tempfile::tempdir().expect("folder");
    for (order, right) in [("natural", 80), ("seed:1", 60)] {
        Made { order, ..Made::new("a", right) }.write(folder.path());
    }
    let (found, _) = find_runs(folder.path()).expect("find");
    let boards =
        boards(&found, "last", &Options { gather_orders: true, test: true }).expect("boards");
    let markdown = text(Format::Markdown, &boards, &[]);
    assert!(
        markdown.contains("60.00 (seed:1)") && markdown.contains("over class orders"),
        "{markdown}"
    );
}
