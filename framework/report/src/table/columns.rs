//! The columns of a table, by name.

use cilbench::results::leaderboard::{ALL, Metric};
use cilbench::{Error, Result};

/// A column.
#[derive(Clone, Copy)]
pub enum Column {
    /// The rank by the metric that ranks.
    Rank,
    /// The method, with the hyper-parameters that tell it from its other rows.
    Method,
    /// The hash of the configuration.
    Configuration,
    /// The backbone.
    Backbone,
    /// The number of seeds.
    Seeds,
    /// The number of class orders.
    Orders,
    /// Half the width of the 95 % interval of the metric that ranks.
    Interval,
    /// The worst class order by the metric that ranks.
    Worst,
    /// The adjusted p-value of the difference from the best row.
    P,
    /// What a reader must know of a row.
    Remarks,
    /// A number of the runs, with its deviation.
    Metric(&'static Metric),
}

/// The columns that are no metric, by name and heading.
const WORDS: [(&str, Column, &str); 10] = [
    ("rank", Column::Rank, "rank"),
    ("method", Column::Method, "method"),
    ("configuration", Column::Configuration, "configuration"),
    ("backbone", Column::Backbone, "backbone"),
    ("seeds", Column::Seeds, "seeds"),
    ("orders", Column::Orders, "orders"),
    ("interval", Column::Interval, "± 95 %"),
    ("worst", Column::Worst, "worst order"),
    ("p", Column::P, "p to best"),
    ("remarks", Column::Remarks, "remarks"),
];

impl Column {
    /// The column of this name; a hyphen may be written as an underscore.
    ///
    /// # Errors
    /// [`Error::Usage`] that suggests the nearest one.
    pub fn find(name: &str) -> Result<Self> {
        let plain = name.trim().replace('_', "-");
        let word = WORDS.iter().find(|(word, ..)| *word == plain).map(|(_, column, _)| *column);
        let metric = || ALL.iter().find(|m| m.name == plain).map(Column::Metric);
        word.or_else(metric).ok_or_else(|| Error::unknown("column", name, Self::names()))
    }

    /// The columns of these names, none twice.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the one at fault.
    pub fn list(names: &[String]) -> Result<Vec<Self>> {
        let columns: Vec<Self> =
            names.iter().map(|name| Self::find(name)).collect::<Result<_>>()?;
        for (i, column) in columns.iter().enumerate() {
            if columns[..i].iter().any(|other| other.name() == column.name()) {
                return Err(Error::usage(format!(
                    "--columns names {} twice; name each once",
                    column.name()
                )));
            }
        }
        Ok(columns)
    }

    /// The names of all columns.
    pub fn names() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(word, ..)| *word).chain(ALL.iter().map(|m| m.name))
    }

    /// What is exported where no columns are named.
    pub fn usual(gathered: bool) -> Vec<Self> {
        let (before, after): (&[&str], &[&str]) =
            (&["rank", "method", "seeds"], &["last", "avg", "forgetting", "bwt"]);
        let orders: &[&str] = if gathered { &["orders"] } else { &[] };
        let worst: &[&str] = if gathered { &["worst"] } else { &[] };
        let names = [before, orders, after, worst, &["carried", "remarks"]].concat();
        names.into_iter().filter_map(|name| Self::find(name).ok()).collect()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metric(metric) => metric.name,
            word => word.word().0,
        }
    }

    /// What stands over it.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Metric(metric) => metric.heading,
            word => word.word().2,
        }
    }

    /// Whether its cells are text, not numbers.
    pub fn is_text(self) -> bool {
        matches!(
            self,
            Self::Method | Self::Configuration | Self::Backbone | Self::Worst | Self::Remarks
        )
    }

    fn word(self) -> &'static (&'static str, Self, &'static str) {
        let same = |c: &Self| std::mem::discriminant(c) == std::mem::discriminant(&self);
        WORDS.iter().find(|(_, column, _)| same(column)).unwrap_or(&WORDS[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_column_and_the_nearest_is_suggested() {
        for name in Column::names() {
            assert_eq!(Column::find(name).expect("known").name(), name);
        }
        assert_eq!(Column::find("top_5").expect("known").name(), "top-5");
        let error =
            Column::list(&["last".into(), "forgeting".into()]).err().expect("unknown").to_string();
        assert!(error.contains("'forgetting'"), "{error}");
        assert!(Column::list(&["last".into(), "last".into()]).is_err());
    }
}
