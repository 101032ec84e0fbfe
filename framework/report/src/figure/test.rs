use super::*;

fn line(name: &str, bound: bool) -> Line {
    let points: Vec<(f64, f64)> = (1..=5).map(|t| (f64::from(t), 90.0 - f64::from(t))).collect();
    let band = points.iter().map(|p| (p.1 - 1.0, p.1 + 1.0)).collect();
    Line { name: name.to_owned(), points, band, bound }
}

fn some_lines(n: usize) -> Figure {
    let mut all: Vec<Line> = (0..n).map(|i| line(&format!("method <{i}>"), false)).collect();
    all.push(line("joint", true));
    lines(&Lines {
        about: ("over", "A & b"),
        axes: ("tasks", "accuracy, %"),
        limits: (0.0, 100.0),
        marks: true,
        lines: all,
    })
    .expect("a figure")
}

#[test]
fn a_figure_is_well_formed_and_names_what_has_a_colour() {
    let figure = some_lines(9);
    assert!(
        figure.svg.contains("method &lt;5&gt;") && figure.svg.contains("3 others"),
        "{}",
        figure.svg
    );
    assert!(figure.svg.contains("joint") && !figure.svg.contains("method &lt;6&gt;"));
    let inline = figure.inline();
    assert!(
        inline.starts_with("<svg viewBox=\"0 0 520") && inline.contains("aria-label=\"A &amp; b\""),
        "{inline}"
    );
    assert!(inline.contains("var(--series-0)") && !inline.contains("font-family"), "{inline}");
}

#[test]
fn a_picture_shows_letters_without_fonts_of_the_system() {
    let with = png(&some_lines(2)).expect("a picture");
    let mut bare = some_lines(2);
    // The same figure without its text.
    while let (Some(start), Some(end)) = (bare.svg.find("<text"), bare.svg.find("</text>")) {
        bare.svg.replace_range(start..end + 7, "");
    }
    let without = png(&bare).expect("a picture");
    assert!(
        with.starts_with(b"\x89PNG") && with.len() > without.len() + 1000,
        "{} {}",
        with.len(),
        without.len()
    );
}

#[test]
fn files_are_written_as_svg_and_png_and_nothing_else_is_touched() {
    let folder = tempfile::tempdir().expect("folder");
    let figures = [some_lines(1)];
    write_all("--figures", folder.path(), &figures).expect("new");
    write_all("--figures", folder.path(), &figures).expect("again");
    assert!(folder.path().join("over.png").is_file());
    std::fs::write(folder.path().join("over.svg"), "<svg/>").expect("write");
    assert!(write_all("--figures", folder.path(), &figures).is_err());
    assert!(write_all("--figures", &folder.path().join("over.png"), &figures).is_err());
}

#[test]
fn the_front_holds_what_nothing_beats() {
    let dot = |cost, value, bound| Dot { name: String::new(), cost, value, bound };
    let dots = [
        dot(1.0, 50.0, false),
        dot(2.0, 40.0, false),
        dot(3.0, 60.0, false),
        dot(3.0, 55.0, false),
        dot(0.5, 99.0, true),
    ];
    assert_eq!(scatter::front(&dots), [0, 2]);
    let figure =
        Scatter { about: ("cost", "cost"), axes: ("seconds", "last, %"), dots: dots.into() };
    assert!(scatter(&figure).is_ok());
}
