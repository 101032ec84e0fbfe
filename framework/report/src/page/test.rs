use cilbench::results::find_runs;

use super::*;
use crate::fixture::Made;

fn of(folder: &std::path::Path) -> Report {
    let (found, errors) = find_runs(folder).expect("find");
    report(&found, &errors.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("report")
}

#[test]
fn data_ids_are_apart_and_altered_and_unfinished_runs_are_marked() {
    let folder = tempfile::tempdir().expect("folder");
    Made::new("a", 90).write(folder.path());
    let b = Made::new("b", 60).write(folder.path());
    Made { order: "seed:1", ..Made::new("a", 70) }.write(folder.path());
    Made { tasks: 2, ..Made::new("stopped", 50) }.write(folder.path());
    let text = std::fs::read_to_string(b.join("run.json"))
        .expect("read")
        .replace("\"last\": 60.0", "\"last\": 99.0");
    std::fs::write(b.join("run.json"), text).expect("write");
    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).expect("folder");
    std::fs::write(broken.join("run.json"), "{").expect("write");
    let page = of(folder.path()).html;
    assert_eq!(page.matches("<section id=").count(), 2, "a group for each data id");
    for part in [
        "3 finished runs in 2 groups",
        "Not finished (interrupted, 2 of 5 tasks)",
        "Altered since it was written, and not ranked",
        "ALTERED: run.json",
        "it cannot be read",
        "<strong>a</strong> has the best last accuracy, 90.00 %",
        "cilbench run --method a",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script") && !page.contains("http:") && !page.contains("https:"));
}

#[test]
fn runs_without_predictions_are_shown_without_what_needs_them() {
    let folder = tempfile::tempdir().expect("folder");
    let path = Made::new("a", 90).write(folder.path());
    Made::new("b", 60).write(folder.path());
    // A committed run: the record says of no prediction files, as of one that never had them.
    std::fs::remove_dir_all(path.join("predictions")).expect("remove");
    let page = of(folder.path()).html;
    assert!(page.contains("holds no predictions of the last task"), "{page}");
}

#[test]
fn fifty_large_runs_stay_below_five_megabytes() {
    let folder = tempfile::tempdir().expect("folder");
    let names: Vec<String> = (0..50).map(|i| format!("method-{i:02}")).collect();
    names
        .iter()
        .enumerate()
        .for_each(|(i, name)| drop(Made::new(name, 20 + i).write(folder.path())));
    let report = of(folder.path());
    assert!(report.html.len() < 5_000_000, "{}", report.html.len());
    assert!(report.figures.len() > 200);
}
