//! How the quantities and settings of recorded trajectories are found in a method of this program.

use crate::Result;
use crate::scenario::TaskInfo;
use crate::state::State;

/// A quantity that a fixture records after a task, and that follows from a method's state: the
/// tensors `task<t>.<name>` and `task<t>.<name>.<suffix>`.
pub struct RecordedQuantity {
    /// Its name in fixtures.
    pub name: &'static str,
    /// Its values from a state, in the order of rows.
    pub read: fn(&Recorded) -> Result<Vec<f64>>,
}

/// What a [`RecordedQuantity`] is read from.
pub struct Recorded<'a> {
    /// The state when the task was over.
    pub state: &'a State,
    /// The task.
    pub task: &'a TaskInfo,
    /// What stands behind the name; empty if nothing does.
    pub suffix: &'a str,
}

inventory::collect!(RecordedQuantity);

/// A setting that fixtures record under another name than the method's own key.
pub struct RecordedSetting {
    /// Its name in fixtures.
    pub recorded: &'static str,
    /// The key of the hyper-parameter. A method without it ignores the setting.
    pub key: &'static str,
}

inventory::collect!(RecordedSetting);
