//! Which classes and which domain each task of a scenario gets.

use super::{ClassOrder, ClassRef, ScenarioKind, ScenarioSpec, Tasks};
use crate::data::Dataset;
use crate::{Error, Result};

/// The tasks of a scenario, without images.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// Each task's classes, as the data set numbers them, in the order in which the model numbers them.
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
    pub(super) fn new(spec: &ScenarioSpec, class_order: ClassOrder, dataset: &dyn Dataset) -> Result<Self> {
        let fail = |what: String| Error::usage(format!("scenario {}: {what}", spec.name));
        let classes = dataset.class_names().len();
        let domains = chosen_domains(spec, dataset).map_err(fail)?;
        let mut used = vec![false; dataset.domain_names().len()];
        domains.iter().for_each(|d| used[*d] = true);
        let mut notes = Vec::new();
        let tasks = match (spec.kind, &spec.tasks, spec.base.zip(spec.increment)) {
            (ScenarioKind::DomainIncremental, ..) => vec![class_order.permutation(classes); domains.len()],
            (_, Some(Tasks::Lists(lists)), _) => {
                if class_order != ClassOrder::Natural {
                    return Err(fail(format!("class order {class_order}: its tasks list their classes, which is the order")));
                }
                listed(lists, dataset).map_err(fail)?
            }
            (_, Some(Tasks::Count(tasks)), _) => {
                if *tasks == 0 || *tasks > classes {
                    return Err(fail(format!("tasks = {tasks}: data set {} has {classes} classes", spec.dataset)));
                }
                let (small, more) = (classes / tasks, classes % tasks);
                if more > 0 {
                    let rest = tasks - more;
                    notes.push(format!(
                        "{classes} classes do not divide into {tasks} tasks: the first {more} get {} classes, the other {rest} get {small}",
                        small + 1
                    ));
                }
                shared_out(&class_order.permutation(classes), |task| small + usize::from(task < more))
            }
            (_, _, Some((base, increment))) => {
                if base == 0 || increment == 0 || base > classes {
                    return Err(fail(format!("base = {base}, increment = {increment}: data set {} has {classes} classes", spec.dataset)));
                }
                if !(classes - base).is_multiple_of(increment) {
                    let last = (classes - base) % increment;
                    notes.push(format!("{classes} classes, {base} and then {increment} a task: the last task gets the remaining {last}"));
                }
                shared_out(&class_order.permutation(classes), |task| if task == 0 { base } else { increment })
            }
            _ => return Err(fail("state tasks, or base and increment".into())),
        };
        let mut place = vec![None; classes];
        let mut next = 0;
        let once = if spec.kind == ScenarioKind::DomainIncremental { &tasks[..1] } else { &tasks };
        for (task, list) in once.iter().enumerate() {
            for class in list {
                place[*class] = Some((task, next));
                next += 1;
            }
        }
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

fn chosen_domains(spec: &ScenarioSpec, dataset: &dyn Dataset) -> Result<Vec<usize>, String> {
    let known = dataset.domain_names();
    let Some(names) = &spec.domains else { return Ok((0..known.len()).collect()) };
    let mut chosen = Vec::new();
    for name in names {
        let domain = known.iter().position(|k| k == name);
        let domain = domain.ok_or_else(|| format!("domains: {}", Error::unknown("domain", name, known.iter().map(String::as_str))))?;
        if chosen.contains(&domain) {
            return Err(format!("domains: '{name}' is listed twice"));
        }
        chosen.push(domain);
    }
    if chosen.is_empty() { Err("domains = []: at least one is needed".into()) } else { Ok(chosen) }
}

fn listed(lists: &[Vec<ClassRef>], dataset: &dyn Dataset) -> Result<Vec<Vec<usize>>, String> {
    let names = dataset.class_names();
    let mut taken = vec![None; names.len()];
    let mut tasks = Vec::new();
    for (task, list) in lists.iter().enumerate() {
        if list.is_empty() {
            return Err(format!("tasks: task {} lists no class", task + 1));
        }
        let mut classes = Vec::new();
        for class in list {
            let index = match class {
                ClassRef::Number(n) if *n < names.len() => *n,
                ClassRef::Number(n) => return Err(format!("tasks: class {n}: the data set has {} classes, from 0", names.len())),
                ClassRef::Name(name) => names
                    .iter()
                    .position(|k| k == name)
                    .ok_or_else(|| format!("tasks: {}", Error::unknown("class", name, names.iter().map(String::as_str))))?,
            };
            if let Some(before) = taken[index].replace(task) {
                return Err(format!("tasks: class '{}' is in task {} and in task {}", names[index], before + 1, task + 1));
            }
            classes.push(index);
        }
        tasks.push(classes);
    }
    if tasks.is_empty() { Err("tasks = []: at least one is needed".into()) } else { Ok(tasks) }
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
