//! Names of classes and domains that are easily taken for each other.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;

/// A note for each group of names that differ only in capitals, blanks or the form of their Unicode
/// characters: they may be one name that was written in several ways. `what` the names are of is
/// used in the notes.
pub(super) fn look_alike(what: &str, names: &[String]) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names {
        groups.entry(blanks(&form(name).to_lowercase())).or_default().push(name);
    }
    let plural = if what == "class" { "classes" } else { "domains" };
    let note = |group: &Vec<&str>| {
        let quoted: Vec<String> = group.iter().map(|n| format!("'{n}'")).collect();
        format!(
            "{plural} {} differ only in {}: are they one {what}?",
            quoted.join(" and "),
            difference(group)
        )
    };
    groups.values().filter(|g| g.len() > 1).map(note).collect()
}

/// In what the names of a group differ.
fn difference(group: &[&str]) -> &'static str {
    let alike =
        |plain: &dyn Fn(&str) -> String| group.windows(2).all(|w| plain(w[0]) == plain(w[1]));
    match (alike(&|n| n.to_lowercase()), alike(&blanks), alike(&form)) {
        (true, ..) => "capitals",
        (_, true, _) => "blanks",
        (_, _, true) => "the form of their Unicode characters",
        _ => "capitals, blanks and the form of their Unicode characters",
    }
}

/// A name in Unicode's composed compatibility form.
fn form(name: &str) -> String {
    name.nfkc().collect()
}

/// A name with single blanks between its words.
fn blanks(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_noted_and_others_are_not() {
        let of = |names: &[&str]| {
            look_alike("class", &names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
        };
        assert!(of(&["cat", "cats", "dog", "Dogma", "t-shirt", "tshirt"]).is_empty());
        for (names, part) in [
            (
                ["Owl", "owl"],
                "classes 'Owl' and 'owl' differ only in capitals: are they one class?",
            ),
            (["fox ", "fox"], "differ only in blanks"),
            (["polar bear", "polar  bear"], "differ only in blanks"),
            (["caf\u{e9}", "cafe\u{301}"], "differ only in the form of their Unicode characters"),
            (["\u{ff21}", "a "], "differ only in capitals, blanks and the form"),
        ] {
            let notes = of(&names);
            assert!(notes.len() == 1 && notes[0].contains(part), "{notes:?}");
        }
    }
}
