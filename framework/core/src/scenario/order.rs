//! The order in which classes appear: natural, a file's, or numpy's permutation of a seed, so that
//! 1993 means what it means in every code base that descends from PyCIL.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::data::read_names;
use crate::{Error, Result};

/// An order of classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClassOrder {
    /// As the data set numbers them.
    Natural,
    /// `numpy.random.RandomState(seed).permutation(classes)`.
    Seed(u32),
    /// As this file lists their names, one per line.
    File(PathBuf),
    /// These numbers of the data set's classes: what a file's names mean for a data set.
    Listed(Vec<usize>),
}

impl ClassOrder {
    /// The same order with the names of a file looked up among these: whoever keeps the result does
    /// not need the file again.
    ///
    /// # Errors
    /// [`Error::File`] with the line whose name is unknown or there twice, or with the names that
    /// are lacking.
    pub fn resolved(self, names: &[String]) -> Result<Self> {
        match self {
            Self::File(file) => Ok(Self::Listed(read_order(&file, names)?)),
            other => Ok(other),
        }
    }

    /// The classes `0..n` in this order.
    ///
    /// # Errors
    /// [`Error::Usage`] for a file that was not resolved, or a list that is no order of `n`
    /// classes.
    pub fn permutation(&self, n: usize) -> Result<Vec<usize>> {
        match self {
            Self::Natural => Ok((0..n).collect()),
            Self::Seed(seed) => Ok(numpy_permutation(*seed, n)),
            Self::Listed(order) => {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                let whole = sorted.iter().copied().eq(0..n);
                whole.then(|| order.clone()).ok_or_else(|| {
                    Error::usage(format!("class order {self}: this is no order of {n} classes"))
                })
            }
            Self::File(file) => Err(Error::usage(format!(
                "class order {}: the file was not read yet",
                file.display()
            ))),
        }
    }

    /// The same order, a relative file taken from the folder of `file`.
    pub fn beside(self, file: &Path) -> Self {
        match (self, file.parent()) {
            (Self::File(order), Some(folder)) => Self::File(folder.join(order)),
            (other, _) => other,
        }
    }

    /// Everything about it as one text, from which it can be read again.
    fn whole_text(&self) -> String {
        match self {
            Self::Listed(order) => {
                let numbers: Vec<String> = order.iter().map(usize::to_string).collect();
                format!("{LISTED}{}", numbers.join(","))
            }
            other => other.to_string(),
        }
    }
}

/// What the text of [`ClassOrder::Listed`] begins with.
const LISTED: &str = "listed:";

/// The numbers of the classes that a file names, in its order.
fn read_order(file: &Path, names: &[String]) -> Result<Vec<usize>> {
    let mut place: Vec<Option<u32>> = vec![None; names.len()];
    let mut order = Vec::new();
    for (name, line) in read_names(file)? {
        let bad = |what: String| Error::file(file, format!("line {line}: {what}"));
        let class = names.iter().position(|n| *n == name || n.trim() == name);
        let class = class.ok_or_else(|| {
            bad(Error::unknown("class", &name, names.iter().map(String::as_str)).to_string())
        })?;
        if let Some(before) = place[class].replace(line) {
            return Err(bad(format!(
                "class '{name}' is on line {before} already; name each class once"
            )));
        }
        order.push(class);
    }
    let lacking: Vec<&str> =
        names.iter().zip(&place).filter(|(_, p)| p.is_none()).map(|(n, _)| n.as_str()).collect();
    match lacking.as_slice() {
        [] => Ok(order),
        [first, ..] => {
            let count = lacking.len();
            Err(Error::file(
                file,
                format!(
                    "{count} of {} classes are not named, the first '{first}'; name every class",
                    names.len()
                ),
            ))
        }
    }
}

impl fmt::Display for ClassOrder {
    /// What is shown and what names folders; a list is shown by the first digits of its hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Natural => f.write_str("natural"),
            Self::Seed(seed) => write!(f, "seed:{seed}"),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Listed(_) => {
                write!(f, "{LISTED}{}", &crate::sha256(self.whole_text().as_bytes())[..8])
            }
        }
    }
}

impl FromStr for ClassOrder {
    type Err = Error;

    /// `natural`, `seed:<n>`, the numbers of a list, or the path of a file that is there.
    fn from_str(text: &str) -> Result<Self, Error> {
        let listed =
            |list: &str| list.split(',').map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>();
        if text == "natural" {
            return Ok(Self::Natural);
        }
        if let Some(seed) = text.strip_prefix("seed:").and_then(|s| s.parse().ok()) {
            return Ok(Self::Seed(seed));
        }
        if let Some(order) = text.strip_prefix(LISTED).and_then(listed) {
            return Ok(Self::Listed(order));
        }
        let looks_like_a_file = text.contains('/')
            || Path::new(text).extension().is_some()
            || Path::new(text).is_file();
        if looks_like_a_file && !text.starts_with("seed:") {
            return Ok(Self::File(text.into()));
        }
        Err(Error::usage(format!(
            "class order '{text}': use natural, seed:<n> with n from 0 to {}, as in seed:1993, or a file with one class name per line",
            u32::MAX
        )))
    }
}

impl TryFrom<String> for ClassOrder {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ClassOrder> for String {
    fn from(order: ClassOrder) -> Self {
        order.whole_text()
    }
}

/// numpy's legacy `RandomState(seed).permutation(n)`: Fisher and Yates from the end, each index by
/// masked rejection of 32-bit draws.
fn numpy_permutation(seed: u32, n: usize) -> Vec<usize> {
    let mut rng = rand_mt::Mt::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let mask = u32::MAX >> (i as u32).leading_zeros();
        let j = loop {
            let draw = rng.next_u32() & mask;
            if draw <= i as u32 {
                break draw as usize;
            }
        };
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(seed: u32, n: usize) -> Vec<usize> {
        ClassOrder::Seed(seed).permutation(n).expect("a seed orders any number of classes")
    }

    /// `python3 -c "import numpy; print(numpy.random.RandomState(SEED).permutation(N).tolist())"`
    #[test]
    fn equals_numpy() {
        assert_eq!(seeded(1993, 10), [4, 2, 7, 6, 0, 3, 5, 8, 9, 1]);
        assert_eq!(seeded(0, 7), [6, 2, 1, 3, 0, 5, 4]);
        assert_eq!(seeded(42, 13), [11, 9, 0, 8, 5, 2, 1, 12, 4, 7, 10, 3, 6]);
        assert_eq!(seeded(4294967295, 9), [5, 1, 8, 7, 0, 6, 4, 2, 3]);
        let hundred = seeded(1993, 100);
        assert_eq!(
            hundred[..20],
            [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38]
        );
        assert_eq!(
            hundred[80..],
            [62, 69, 36, 61, 7, 63, 75, 5, 32, 4, 51, 48, 73, 93, 39, 67, 29, 49, 57, 33]
        );
    }

    #[test]
    fn text_goes_there_and_back() {
        for text in ["natural", "seed:1993"] {
            assert_eq!(text.parse::<ClassOrder>().expect("valid").to_string(), text);
        }
        for bad in ["random", "seed:", "seed:-1", "seed:x", ""] {
            assert!(
                bad.parse::<ClassOrder>()
                    .expect_err("must be refused")
                    .to_string()
                    .contains("seed:1993"),
                "{bad}"
            );
        }
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("class {i}")).collect()
    }

    #[test]
    fn a_file_of_names_is_the_order_of_its_lines() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("order.txt");
        let read = |text: &str| {
            std::fs::write(&file, text).expect("file");
            let order: ClassOrder = file.display().to_string().parse().expect("a path");
            order.resolved(&names(4))
        };
        let order = read("\u{feff}class 2\r\nclass 0 \r\n\r\nclass 3\r\nclass 1").expect("order");
        assert_eq!(order.permutation(4).expect("four"), [2, 0, 3, 1]);
        assert!(
            order.permutation(5).expect_err("five").to_string().contains("no order of 5 classes")
        );
        let text = String::from(order.clone());
        assert_eq!(
            (text.as_str(), text.parse::<ClassOrder>().expect("back")),
            ("listed:2,0,3,1", order.clone())
        );
        assert!(
            order.to_string().starts_with("listed:") && order.to_string().len() == 15,
            "{order}"
        );
        for (text, part) in [
            ("class 2\nclass 7\n", "line 2: unknown class 'class 7'"),
            ("class 2\nclass 0\nclass 2\n", "line 3: class 'class 2' is on line 1 already"),
            ("class 2\nclass 0\n", "2 of 4 classes are not named, the first 'class 1'"),
            ("", "4 of 4 classes are not named"),
        ] {
            let message = read(text).expect_err(part).to_string();
            assert!(message.contains(part) && message.contains("order.txt"), "{message}");
        }
        let absent: ClassOrder = "no/such/order.txt".parse().expect("a path");
        assert!(
            absent
                .resolved(&names(4))
                .expect_err("absent")
                .to_string()
                .contains("no/such/order.txt")
        );
    }
}
