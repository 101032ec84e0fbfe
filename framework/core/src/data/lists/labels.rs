//! Numbers for the labels and domains of a manifest.

use std::collections::BTreeMap;

/// Labels or domains, numbered.
pub(super) struct Numbered {
    /// The number of each line's text.
    pub numbers: Vec<usize>,
    /// What the numbers are called.
    pub names: Vec<String>,
    /// What to ask where a number has no image: which numbers there are.
    pub hint: Option<String>,
}

/// Numbers the texts of (text, line) pairs: by themselves if all are numbers, else by their
/// alphabetical order. `what` they are is used in messages.
///
/// # Errors
/// What is odd about which line.
pub(super) fn numbered<'a>(
    texts: impl Iterator<Item = (&'a str, u32)> + Clone,
    what: &str,
) -> Result<Numbered, String> {
    let numbers: Option<Vec<usize>> = texts.clone().map(|(t, _)| t.parse().ok()).collect();
    if let Some(numbers) = numbers {
        return by_number(texts, numbers, what);
    }
    let mut order: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
    for (text, line) in texts.clone() {
        order.entry(text).or_insert((0, line));
    }
    refuse_odd_words(&order, what)?;
    order.values_mut().enumerate().for_each(|(i, n)| n.0 = i);
    let name = |k: &&str| if k.is_empty() { what.to_owned() } else { (*k).to_owned() };
    Ok(Numbered {
        numbers: texts.map(|(t, _)| order[t].0).collect(),
        names: order.keys().map(name).collect(),
        hint: None,
    })
}

fn by_number<'a>(
    texts: impl Iterator<Item = (&'a str, u32)> + Clone,
    numbers: Vec<usize>,
    what: &str,
) -> Result<Numbered, String> {
    refuse_two_spellings(texts.clone(), &numbers, what)?;
    let mut distinct = numbers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let (low, high) =
        (distinct.first().copied().unwrap_or(0), distinct.last().copied().unwrap_or(0));
    // A name is kept for each number up to the highest, so that what may be an id must not decide
    // how many.
    if high >= 2 * distinct.len() + 100 {
        let line = texts.zip(&numbers).find(|(_, n)| **n == high).map_or(0, |((_, line), _)| line);
        return Err(format!(
            "line {line}: {what} {high}: there are {} different numbers, which should run from 0 to {}; if they are ids, put a \
             letter before them, so that they are names",
            distinct.len(),
            distinct.len() - 1
        ));
    }
    let gap = (low..high).find(|n| distinct.binary_search(n).is_err());
    let hint = match (low, gap) {
        (1, None) => Some(format!(
            "the list's {what} numbers run from 1 to {high}: do they count from 1? Then take 1 off each"
        )),
        (_, Some(gap)) => Some(format!(
            "the list's {what} numbers run from {low} to {high}, and no line has {gap}"
        )),
        _ => None,
    };
    Ok(Numbered { numbers, names: (0..=high).map(|i| format!("{what} {i}")).collect(), hint })
}

/// An error if one number is written in two ways, as 7 and 007: they may be two names.
fn refuse_two_spellings<'a>(
    texts: impl Iterator<Item = (&'a str, u32)> + Clone,
    numbers: &[usize],
    what: &str,
) -> Result<(), String> {
    let odd = |t: &str| t.len() > 1 && t.starts_with(['0', '+']);
    if !texts.clone().any(|(t, _)| odd(t)) {
        return Ok(());
    }
    let mut first: BTreeMap<usize, (&str, u32)> = BTreeMap::new();
    for ((text, line), number) in texts.zip(numbers) {
        let (spelled, before) = *first.entry(*number).or_insert((text, line));
        if spelled != text {
            return Err(format!(
                "line {line}: {what} '{text}' is '{spelled}' on line {before}; write one number in one way"
            ));
        }
    }
    Ok(())
}

/// An error if nearly all of the different texts are numbers: one word would make names of all of
/// them, and sort 10 before 2.
fn refuse_odd_words(order: &BTreeMap<&str, (usize, u32)>, what: &str) -> Result<(), String> {
    let (numbers, words): (Vec<_>, Vec<_>) =
        order.iter().partition(|(t, _)| t.parse::<usize>().is_ok());
    if let Some((text, (_, line))) = order.iter().find(|(t, _)| is_whole_decimal(t)) {
        return Err(format!(
            "line {line}: {what} '{text}': write a whole number without decimals, or a name"
        ));
    }
    let Some((text, (_, line))) = words.iter().min_by_key(|(_, (_, line))| *line) else {
        return Ok(());
    };
    if numbers.len() < 2 || words.len() * 4 > numbers.len().max(4) {
        return Ok(());
    }
    Err(format!(
        "line {line}: {what} '{text}' among {} numbers: write numbers everywhere, or names everywhere",
        numbers.len()
    ))
}

/// A number such as 3.0, which spreadsheets and pandas make of 3.
fn is_whole_decimal(text: &str) -> bool {
    let zeros = |tail: &str| !tail.is_empty() && tail.bytes().all(|b| b == b'0');
    text.split_once('.').is_some_and(|(head, tail)| head.parse::<u64>().is_ok() && zeros(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<Numbered, String> {
        numbered(texts.iter().zip(1..).map(|(t, line)| (*t, line)), "class")
    }

    #[test]
    fn numbers_are_themselves_and_names_are_sorted() {
        let a = of(&["2", "0", "1", "2"]).expect("numbers");
        assert_eq!((a.numbers, a.names.len(), a.hint), (vec![2, 0, 1, 2], 3, None));
        let b = of(&["dog", "cat", "dog"]).expect("names");
        assert_eq!((b.numbers, b.names), (vec![1, 0, 1], vec!["cat".to_owned(), "dog".to_owned()]));
        assert_eq!(of(&["001", "002", "000"]).expect("padded").numbers, [1, 2, 0]);
        // Digits and letters are all names, as in EMNIST.
        assert_eq!(of(&["0", "1", "A", "B"]).expect("mixed").numbers, [0, 1, 2, 3]);
        assert_eq!(of(&["", ""]).expect("no domain").names, ["class"]);
    }

    #[test]
    fn labels_that_look_wrong_are_asked_about() {
        assert!(
            of(&["3", "1", "2"])
                .expect("from 1")
                .hint
                .expect("hint")
                .contains("run from 1 to 3: do they count from 1?")
        );
        assert!(
            of(&["0", "3", "1"])
                .expect("gap")
                .hint
                .expect("hint")
                .contains("from 0 to 3, and no line has 2")
        );
        for (texts, part) in [
            (&["7", "1", "007"][..], "line 3: class '007' is '7' on line 1"),
            (&["+4", "4"], "line 2: class '4' is '+4' on line 1"),
            (&["0", "1", "2", "3", "wolf"], "line 5: class 'wolf' among 4 numbers"),
            (&["0", "1", "2", "3", ""], "line 5: class '' among 4 numbers"),
            (&["0.0", "1.0"], "line 1: class '0.0': write a whole number"),
            (
                &["0", "31337000", "1"],
                "line 2: class 31337000: there are 3 different numbers, which should run from 0 to 2",
            ),
            (&["0", "1000000000000"], "if they are ids"),
            (&["18446744073709551615"], "if they are ids"),
        ] {
            let message = of(texts).err().expect(part);
            assert!(message.contains(part), "{message}");
        }
    }
}
