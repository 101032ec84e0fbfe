//! Which classes and which domain each task of a scenario gets.

use super::{ClassOrder, ClassRef, ScenarioKind, ScenarioSpec, Tasks};
use crate::data::Dataset;
use crate::{Error, Result};

/// The tasks of a scenario, without images.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// Each task's classes, as the data set numbers them, in the order in which the model numbers
    /// them.
    pub tasks: Vec<Vec<usize>>,
    /// Domain-incremental: each task's domain, as the data set numbers it.
    pub domains: Option<Vec<usize>>,
    /// The domains whose images are used.
    used: Vec<bool>,
    /// For each class of the data set, the (task, class of the model) it becomes.
    place: Vec<Option<(usize, usize)>>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Layout {
    pub(super) fn new(
        spec: &ScenarioSpec,
        class_order: &ClassOrder,
        dataset: &dyn Dataset,
    ) -> Result<Self> {
        let fail = |what: String| Error::usage(format!("scenario {}: {what}", spec.name));
        let classes = dataset.class_names().len();
        let domains = chosen_domains(spec, dataset).map_err(fail)?;
        let mut used = vec![false; dataset.domain_names().len()];
        domains.iter().for_each(|d| used[*d] = true);
        let mut notes = Vec::new();
        let tasks = match (spec.kind, &spec.tasks) {
            (ScenarioKind::DomainIncremental, _) => {
                vec![class_order.permutation(classes)?; domains.len()]
            }
            (_, Some(Tasks::Lists(lists))) => {
                if *class_order != ClassOrder::Natural {
                    return Err(fail(format!(
                        "class order {class_order}: its tasks list their classes, which is the order"
                    )));
                }
                listed(lists, dataset, &mut notes).map_err(fail)?
            }
            _ => {
                let size = sizes(spec, classes, &mut notes).map_err(fail)?;
                shared_out(&class_order.permutation(classes)?, size)
            }
        };
        let place = places(&tasks, spec.kind, classes);
        let left_out = place.iter().filter(|p| p.is_none()).count();
        if left_out > 0 {
            notes.push(format!("{left_out} of {classes} classes are in no task and left out"));
        }
        let domains = (spec.kind == ScenarioKind::DomainIncremental).then_some(domains);
        Ok(Self { tasks, domains, used, place, notes })
    }

    /// The task and the model's class of an image; `None` if it is left out.
    pub(super) fn place(&self, label: usize, domain: usize) -> Option<(usize, usize)> {
        let (task, class) = self.place[label].filter(|_| self.used[domain])?;
        match &self.domains {
            Some(domains) => Some((domains.iter().position(|d| *d == domain)?, class)),
            None => Some((task, class)),
        }
    }

    /// The model's number of a task's first class.
    pub(super) fn first_class(&self, task: usize) -> usize {
        if self.domains.is_some() { 0 } else { self.tasks[..task].iter().map(Vec::len).sum() }
    }
}

/// For each class of the data set, the (task, class of the model) that it becomes.
fn places(tasks: &[Vec<usize>], kind: ScenarioKind, classes: usize) -> Vec<Option<(usize, usize)>> {
    let mut place = vec![None; classes];
    let mut next = 0;
    let once = if kind == ScenarioKind::DomainIncremental { &tasks[..1] } else { tasks };
    for (task, list) in once.iter().enumerate() {
        for class in list {
            place[*class] = Some((task, next));
            next += 1;
        }
    }
    place
}

/// The number of classes of each task, where the scenario states a number of tasks, or a base and
/// an increment.
fn sizes(
    spec: &ScenarioSpec,
    classes: usize,
    notes: &mut Vec<String>,
) -> Result<Box<dyn Fn(usize) -> usize>, String> {
    match (&spec.tasks, spec.base.zip(spec.increment)) {
        (Some(Tasks::Count(tasks)), _) => {
            let tasks = *tasks;
            if tasks == 0 || tasks > classes {
                return Err(format!(
                    "tasks = {tasks}: data set {} has {classes} classes; state 1 to {classes} tasks",
                    spec.dataset
                ));
            }
            let (small, more) = (classes / tasks, classes % tasks);
            if more > 0 {
                let rest = tasks - more;
                notes.push(format!(
                    "{classes} classes do not divide into {tasks} tasks: the first {more} get {} classes, the other {rest} get {small}",
                    small + 1
                ));
            }
            Ok(Box::new(move |task| small + usize::from(task < more)))
        }
        (_, Some((base, increment))) => {
            if base == 0 || increment == 0 || base > classes {
                return Err(format!(
                    "base = {base}, increment = {increment}: data set {} has {classes} classes",
                    spec.dataset
                ));
            }
            if !(classes - base).is_multiple_of(increment) {
                let last = (classes - base) % increment;
                notes.push(format!("{classes} classes, {base} and then {increment} per task: the last task gets the remaining {last}"));
            }
            Ok(Box::new(move |task| if task == 0 { base } else { increment }))
        }
        _ => Err("state tasks, or base and increment".into()),
    }
}

fn chosen_domains(spec: &ScenarioSpec, dataset: &dyn Dataset) -> Result<Vec<usize>, String> {
    let known = dataset.domain_names();
    let Some(names) = &spec.domains else { return Ok((0..known.len()).collect()) };
    let mut chosen = Vec::new();
    for name in names {
        let domain = known.iter().position(|k| k == name);
        let domain = domain.ok_or_else(|| {
            format!("domains: {}", Error::unknown("domain", name, known.iter().map(String::as_str)))
        })?;
        if chosen.contains(&domain) {
            return Err(format!("domains: '{name}' is listed twice"));
        }
        chosen.push(domain);
    }
    if chosen.is_empty() { Err("domains = []: at least one is needed".into()) } else { Ok(chosen) }
}

fn listed(
    lists: &[Vec<ClassRef>],
    dataset: &dyn Dataset,
    notes: &mut Vec<String>,
) -> Result<Vec<Vec<usize>>, String> {
    let names = dataset.class_names();
    let bare = Bare::of(names);
    let mut taken = vec![None; names.len()];
    let mut tasks = Vec::new();
    for (task, list) in lists.iter().enumerate() {
        if list.is_empty() {
            return Err(format!("tasks: task {} lists no class", task + 1));
        }
        let mut classes = Vec::new();
        for class in list {
            let index = match class {
                ClassRef::Number(n) => bare.class(*n, names)?,
                ClassRef::Name(name) => names.iter().position(|k| k == name).ok_or_else(|| {
                    format!(
                        "tasks: {}",
                        Error::unknown("class", name, names.iter().map(String::as_str))
                    )
                })?,
            };
            if let Some(before) = taken[index].replace(task) {
                return Err(format!(
                    "tasks: class '{}' is in task {} and in task {}",
                    names[index],
                    before + 1,
                    task + 1
                ));
            }
            classes.push(index);
        }
        tasks.push(classes);
    }
    let bare_numbers = lists.iter().flatten().any(|c| matches!(c, ClassRef::Number(_)));
    if bare_numbers && bare == Bare::Names {
        notes.push("the classes' names are numbers: the numbers in tasks are names, and not places in the order of names".into());
    }
    if tasks.is_empty() { Err("tasks = []: at least one is needed".into()) } else { Ok(tasks) }
}

/// What a number without quotes means in `tasks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bare {
    /// The class of this number in the data set.
    Places,
    /// The class whose name is this number: all names are numbers, and not each its own place.
    Names,
    /// The class of this number, unless another class has it for a name.
    Either,
}

impl Bare {
    fn of(names: &[String]) -> Self {
        let numbers = names.iter().filter(|n| value(n).is_some()).count();
        let own_place = names.iter().enumerate().all(|(i, n)| value(n) == Some(i));
        match numbers {
            0 => Self::Places,
            n if n < names.len() => Self::Either,
            _ if own_place => Self::Places,
            _ => Self::Names,
        }
    }

    /// The class that `n` means.
    fn class(self, n: usize, names: &[String]) -> Result<usize, String> {
        let called: Vec<usize> = (0..names.len())
            .filter(|i| self != Self::Places && value(&names[*i]) == Some(n))
            .collect();
        match (self, called.as_slice()) {
            (Self::Names, [one]) => Ok(*one),
            (Self::Names, []) => Err(format!(
                "tasks: {}",
                Error::unknown("class", &n.to_string(), names.iter().map(String::as_str))
            )),
            (Self::Either, [one]) if *one == n => Ok(n),
            (_, [one, ..]) => Err(format!(
                "tasks: class {n}: a class is called '{}', which is not the class in place {n} of the order of names; write the name in quotes",
                names[*one]
            )),
            (_, []) if n < names.len() => Ok(n),
            (_, []) => Err(format!(
                "tasks: class {n}: the data set has {} classes, numbered from 0",
                names.len()
            )),
        }
    }
}

/// The number that a name is.
fn value(name: &str) -> Option<usize> {
    name.bytes().all(|b| b.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

/// Cuts an order of classes into tasks of these sizes, the last as large as what is left.
fn shared_out(order: &[usize], size: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let (mut tasks, mut rest) = (Vec::new(), order);
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(size(tasks.len()).min(rest.len()));
        tasks.push(head.to_vec());
        rest = tail;
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn bare_numbers_mean_names_where_all_names_are_numbers() {
        let folders = names(&["0", "1", "10", "11", "2", "3"]);
        let bare = Bare::of(&folders);
        assert_eq!((bare.class(10, &folders), bare.class(2, &folders)), (Ok(2), Ok(4)));
        assert!(bare.class(4, &folders).expect_err("no name").contains("unknown class '4'"));
        let padded = names(&["001", "002", "010"]);
        assert_eq!(Bare::of(&padded).class(2, &padded), Ok(1));
        let twice = names(&["007", "1", "7"]);
        assert!(
            Bare::of(&twice)
                .class(7, &twice)
                .expect_err("two")
                .contains("write the name in quotes")
        );
        // Where a name is its own place, both readings are one.
        let plain = names(&["0", "1", "2"]);
        assert_eq!((Bare::of(&plain), Bare::of(&plain).class(2, &plain)), (Bare::Places, Ok(2)));
    }

    #[test]
    fn elsewhere_they_are_places_unless_a_name_contradicts() {
        let words = names(&["cat", "dog"]);
        assert_eq!(Bare::of(&words).class(1, &words), Ok(1));
        assert!(
            Bare::of(&words)
                .class(2, &words)
                .expect_err("range")
                .contains("2 classes, numbered from 0")
        );
        let mixed = names(&["12", "3", "cat"]);
        assert_eq!(Bare::of(&mixed).class(2, &mixed), Ok(2));
        assert!(
            Bare::of(&mixed)
                .class(3, &mixed)
                .expect_err("a name")
                .contains("a class is called '3'")
        );
    }
}
