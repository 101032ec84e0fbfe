//! The record of a run: `run.json`.

use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInfo, BackboneOptions};
use crate::method::Plugin;
use crate::metrics::{Scores, Summary};
use crate::scenario::ScenarioInfo;

/// The version of the format of `run.json`.
pub const FORMAT: u32 = 1;

/// Everything that decides a run's numbers: two runs with equal identities are the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The method's name.
    pub method: String,
    /// The version of the method's arithmetic.
    pub method_version: String,
    /// The method's full configuration: defaults, preset, the user's file and `--set` merged.
    pub config: toml::Table,
    /// The scenario, its class order, transforms and data id.
    pub scenario: ScenarioInfo,
    /// The backbone, with the hash of its weights.
    pub backbone: BackboneInfo,
    /// What the user said of the backbone.
    pub backbone_options: BackboneOptions,
    /// The run seed: initial weights, data order, augmentation, draws.
    pub seed: u64,
    /// The floating-point type of the computation.
    pub dtype: String,
    /// The device.
    pub device: String,
    /// The plugin that the method came from; none for a method of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Plugin>,
}

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// In progress, or ended without a word (killed).
    Running,
    /// Stopped from outside.
    Interrupted,
    /// Ended by an error.
    Failed,
    /// All tasks learned and scored.
    Finished,
}

/// The JSON of plain data, which can always be written.
fn as_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data can be written as JSON")
}

/// Where a run ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Threads used.
    pub threads: usize,
    /// Operating system and architecture.
    pub platform: String,
    /// The GPU's name, of a run on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Runs that shared the machine with it in a sweep, this one included: its speed is not that of
    /// the machine.
    #[serde(default = "alone", skip_serializing_if = "is_alone")]
    pub jobs: usize,
}

fn alone() -> usize {
    1
}

fn is_alone(jobs: &usize) -> bool {
    *jobs <= 1
}

/// The environment variable in which a sweep tells its runs how many share the machine.
pub const JOBS: &str = "CILBENCH_JOBS";

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name =
            info.lines().find_map(|l| l.strip_prefix("model name").and_then(|l| l.split_once(':')));
        Self {
            processor: name.map_or_else(|| "unknown".to_owned(), |(_, n)| n.trim().to_owned()),
            threads: rayon::current_num_threads(),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            gpu: None,
            jobs: std::env::var(JOBS).ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1),
        }
    }

    /// The largest resident memory of this process so far, in bytes, where the system says.
    pub fn peak_memory() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    }
}

/// What a run cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Training images a second, over all training steps.
    pub images_per_second: f64,
    /// Largest resident memory, in bytes, where the system says.
    pub peak_memory: Option<u64>,
    /// The most that tensors held at one time on a GPU, in bytes; none of a run on the CPU, and
    /// where the driver does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_device_memory: Option<u64>,
    /// Parameters that changed while the last task was learned.
    pub trained_parameters: usize,
    /// Parameters and statistics the method carries after the last task, besides the backbone.
    pub stored_parameters: usize,
    /// Bytes of the same.
    pub carried_bytes: usize,
    /// Images kept in the memory.
    pub stored_images: usize,
    /// Bytes of the same, at the size they are stored.
    pub stored_image_bytes: usize,
}

/// What is recorded of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Scores on all classes seen so far, after this task.
    pub scores: Scores,
    /// Mean |λ_new − λ_old| on up to 512 of the task's training images, where the backbone has CLS
    /// tokens; none for the first task.
    pub relation_drift: Option<f64>,
    /// Seconds of training steps, with loading.
    pub train_seconds: f64,
    /// Seconds of `begin_task` and `end_task`.
    pub task_seconds: f64,
    /// Seconds of scoring.
    pub test_seconds: f64,
    /// Training steps.
    pub steps: usize,
    /// SHA-256 of the method's state after the task.
    pub state_hash: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    pub format: u32,
    /// How far it came.
    pub status: Status,
    /// The error it ended with, if one.
    pub error: Option<String>,
    /// The data id: equal ids mean equal data, order and transforms.
    pub data_id: String,
    /// What was run.
    pub identity: Identity,
    /// Where on the hub the data set is from, repository and commit; none if it was on disk.
    #[serde(default)]
    pub data_source: Option<String>,
    /// cilbench's version.
    pub code_version: String,
    /// SHA-256 of the program that ran.
    pub code_hash: String,
    /// Where it ran.
    pub machine: Machine,
    /// Things a reader must know: a backbone that saw the data set in pre-training.
    pub warnings: Vec<String>,
    /// R\[t\]\[i\], percent.
    pub accuracy_matrix: Vec<Vec<f64>>,
    /// Test images of each task.
    pub counts: Vec<usize>,
    /// last, avg, forgetting, bwt, percent.
    #[serde(flatten)]
    pub summary: Summary,
    /// Mean relation drift over the tasks after the first.
    pub relation_drift: Option<f64>,
    /// Each task.
    pub tasks: Vec<TaskRecord>,
    /// What it cost.
    #[serde(flatten)]
    pub costs: Costs,
    /// Whether every task was scored with a method rebuilt from its counted state alone.
    pub audited: bool,
    /// The chain of receipts, one for each task.
    pub receipts: Vec<Receipt>,
    /// SHA-256 of every prediction file.
    pub files: std::collections::BTreeMap<String, String>,
    /// SHA-256 of everything above.
    pub seal: String,
}

/// A link of the chain of receipts: what a task began from and what it ended in. Anyone with the
/// data can do it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// SHA-256 of the state before the task.
    pub state_before: String,
    /// SHA-256 of the state after it.
    pub state_after: String,
    /// SHA-256 over the link before (for the first: identity and program), and the two states.
    pub link: String,
}

impl Identity {
    /// SHA-256 of everything in it.
    pub fn hash(&self) -> String {
        crate::sha256(as_json(self).as_bytes())
    }

    /// The first digits of SHA-256 over how the method is run: hyper-parameters, floating-point
    /// type, device, options of the backbone and image size. It says neither the method nor the
    /// weights nor the data.
    pub fn configuration(&self) -> String {
        let config = serde_json::json!([
            self.config,
            self.dtype,
            self.device,
            self.backbone_options,
            self.backbone.image_size
        ]);
        crate::sha256(config.to_string().as_bytes())[..8].to_owned()
    }
}

impl Record {
    /// Seals the record: its hash over everything else shows a later change.
    pub fn seal(&mut self) {
        self.seal = self.content_hash();
    }

    /// Whether nothing was changed since it was sealed.
    pub fn is_sealed(&self) -> bool {
        self.seal == self.content_hash()
    }

    fn content_hash(&self) -> String {
        let mut plain = self.clone();
        plain.seal.clear();
        crate::sha256(as_json(&plain).as_bytes())
    }

    /// Adds the receipt of a task.
    pub fn receipt(&mut self, state_before: String, state_after: String) {
        let link = self.next_link(self.receipts.last(), &state_before, &state_after);
        self.receipts.push(Receipt { state_before, state_after, link });
    }

    fn next_link(&self, last: Option<&Receipt>, before: &str, after: &str) -> String {
        let start = format!("{}/{}", self.identity.hash(), self.code_hash);
        crate::sha256(
            format!("{}/{before}/{after}", last.map_or(start.as_str(), |r| r.link.as_str()))
                .as_bytes(),
        )
    }

    /// The first task whose receipt does not follow from the one before.
    pub fn broken_link(&self) -> Option<usize> {
        (0..self.receipts.len()).find(|&i| {
            let (last, r) = (i.checked_sub(1).map(|p| &self.receipts[p]), &self.receipts[i]);
            r.link != self.next_link(last, &r.state_before, &r.state_after)
                || last.is_some_and(|l| l.state_after != r.state_before)
        })
    }

    /// A run that begins now.
    pub fn new(identity: Identity, warnings: Vec<String>) -> Self {
        Self {
            format: FORMAT,
            status: Status::Running,
            error: None,
            data_id: identity.scenario.data_id.clone(),
            counts: identity.scenario.images.iter().map(|(_, test)| *test).collect(),
            identity,
            data_source: None,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            code_hash: program_hash(),
            machine: Machine::here(),
            warnings,
            accuracy_matrix: Vec::new(),
            summary: Summary::default(),
            relation_drift: None,
            tasks: Vec::new(),
            costs: Costs::default(),
            audited: false,
            receipts: Vec::new(),
            files: Default::default(),
            seal: String::new(),
        }
    }

    /// Adds a finished task and derives everything again.
    pub fn push(&mut self, task: TaskRecord) {
        self.accuracy_matrix.push(task.scores.by_task.clone());
        self.tasks.push(task);
        let scores: Vec<Scores> = self.tasks.iter().map(|t| t.scores.clone()).collect();
        self.summary = Summary::of(&scores);
        let drifts: Vec<f64> = self.tasks.iter().filter_map(|t| t.relation_drift).collect();
        self.relation_drift =
            (!drifts.is_empty()).then(|| drifts.iter().sum::<f64>() / drifts.len() as f64);
    }
}

fn program_hash() -> String {
    use sha2::{Digest, Sha256};
    let bytes = std::env::current_exe().and_then(std::fs::read);
    bytes.map(|b| crate::hex(&Sha256::digest(b))).unwrap_or_else(|_| "unknown".to_owned())
}
