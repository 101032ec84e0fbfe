//! `cilbench parity`, and a method in Python against the same in Rust.

mod python;

use std::process::{Command, Output};

use candle_core::{D, DType, Device, Tensor};
use cilbench::backbone::{self, BackboneOptions};
use cilbench::context::{Context, Law, Placement};
use cilbench::data::View;
use cilbench::hub::Hub;
use cilbench::method::{
    self, About, Batch, Carry, Loss, Losses, Method, MethodEntry, Plan, Setup, Value,
};
use cilbench::parity::{Options, Report, Side, compare};
use cilbench::plugin::process;
use cilbench::scenario::{self, ScenarioOptions, TaskInfo, TaskStream};
use cilbench::state::Kind;
use cilbench::{Error, Result, candle_core, inventory, schemars, toml};
use cilbench_benchmarks as _;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<PixelSoftmax>() }

#[derive(Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(crate = "cilbench::schemars")]
struct Config {}

/// Softmax regression on pixels by SGD with a step size of 0.05.
struct PixelSoftmax {
    pixels: usize,
    /// (classes, pixels).
    weight: Option<Value>,
}

impl PixelSoftmax {
    fn weight(&self) -> Result<Value> {
        self.weight.clone().ok_or_else(|| Error::Protocol("no task has begun".into()))
    }
}

impl Method for PixelSoftmax {
    type Config = Config;
    cilbench::model!();
    const ABOUT: About = About {
        name: "pixel-softmax",
        summary: "softmax regression on pixels",
        trains: "a linear head on pixels",
        ..About::DEFAULT
    };

    fn new(_: Config, setup: Setup) -> Result<Self> {
        Ok(Self { pixels: 3 * setup.backbone.info().image_size.pow(2), weight: None })
    }

    fn plan(&self, _: &TaskInfo) -> Result<Plan> {
        Ok(Plan::epochs(2, 8, View::Train))
    }

    fn grow(&mut self, _: &TaskInfo, carry: &mut Carry) -> Result<()> {
        if self.weight.is_none() {
            let none = Tensor::zeros((0, self.pixels), DType::F32, &Device::Cpu)?;
            self.weight = Some(carry.held_from("weight", Kind::Trained, none)?);
        }
        Ok(())
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let shape = [task.classes.len(), self.pixels];
        let new = ctx.draw(
            format!("weight.{}", task.index),
            &shape,
            Law::Uniform { low: -0.01, high: 0.01 },
        )?;
        let weight = self.weight()?;
        let all =
            if task.index == 0 { new } else { Tensor::cat(&[weight.get()?.as_ref(), &new], 0)? };
        weight.replace(&all)
    }

    fn observe(&mut self, batch: &Batch, _: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let weight = self.weight()?;
        let x = batch.data.images.flatten_from(1)?;
        let logits = x.matmul(&weight.get()?.t()?)?;
        let p = candle_core::Tensor::exp(&logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?)?;
        let p = p.broadcast_div(&p.sum_keepdim(D::Minus1)?)?;
        let labels = batch.data.labels.unsqueeze(1)?;
        let loss = p.gather(&labels, 1)?.log()?.mean_all()?.neg()?;
        let minus = Tensor::full(-1f32, labels.shape(), &Device::Cpu)?;
        let gradient = (p.scatter_add(&labels, &minus, 1)?.t()?.matmul(&x)? / x.dim(0)? as f64)?;
        ctx.probe("gradient", || Ok(gradient.clone()))?;
        weight.replace(&(&*weight.get()? - (gradient * 0.05)?)?)?;
        Loss::new("ce", loss).losses()
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        ctx.permutation("order", 5).map(drop)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        Ok(images.flatten_from(1)?.matmul(&self.weight()?.get()?.t()?)?)
    }
}

/// Both on the embedded scenario with 12 images a class, the second with these settings.
fn compared(a: &str, b: &str, settings: &str, tolerance: f64) -> Report {
    let hub = Hub::from_env().offline("a test");
    let spec = scenario::find("split-fashion-mnist-5").expect("embedded");
    let opened = scenario::open_dataset(&spec, None, None, &hub).expect("embedded");
    let (entry, options) =
        backbone::resolve("vit-nano", BackboneOptions::default(), &hub).expect("embedded");
    let side = |name: &str, settings: &str| {
        let method = method::find(name).expect("registered");
        let layer = cilbench::config::Layer {
            origin: "test".into(),
            table: toml::from_str(settings).expect("TOML"),
        };
        let config = method.configure("", &[layer]).expect("valid");
        let backbone = (entry.build)(&options, DType::F32, &Device::Cpu).expect("backbone");
        let built = method
            .build(&config, Setup { backbone, placement: Placement::cpu(DType::F32) })
            .expect("built");
        Side { name: name.to_owned(), player: built, access: method.about.access }
    };
    let size = ScenarioOptions {
        image_size: Some(32),
        train_per_class: Some(12),
        test_per_class: Some(5),
        ..ScenarioOptions::default()
    };
    let mut stream = TaskStream::new(&spec, &size, opened.dataset, opened.split).expect("scenario");
    let how = Options { seed: 3, placement: Placement::cpu(DType::F32), tolerance, until: Some(3) };
    compare(side(a, ""), side(b, settings), &mut stream, &how).expect("both run")
}

#[test]
fn a_method_in_python_equals_the_same_in_rust_and_the_first_difference_is_found() {
    let command = format!(
        "env 'PYTHONPATH={}' {}",
        python::package().display(),
        python::command("tests/pixel_softmax.py", "")
    );
    process::register(&command, process::TIMEOUT).expect("the plugin");
    let report = compared("pixel-softmax", "pixel-softmax-python", "", 1e-4);
    assert_eq!(report.parting, None);
    // 3 tasks, 2 epochs of 24 images in batches of 8.
    assert_eq!((report.steps, report.accuracy.len()), (18, 3));
    let names: Vec<(&str, usize)> =
        report.quantities.iter().map(|q| (q.name.as_str(), q.compared)).collect();
    for expected in [
        ("loss ce", 18),
        ("probe gradient", 18),
        ("state (trained)", 6),
        ("logits", 3),
        ("predicted classes", 3),
    ] {
        assert!(names.contains(&expected), "{expected:?}: {names:?}");
    }
    assert_eq!(report.notes, Vec::<String>::new());
    // Another step size: the first step's loss and gradient are still equal, the second's are not.
    let report = compared("pixel-softmax", "pixel-softmax-python", "learning_rate = 0.06", 1e-4);
    let parting = report.parting.expect("they part");
    assert_eq!(
        (parting.quantity.as_str(), parting.place.as_str()),
        ("loss ce", "task 1, epoch 1, step 2")
    );
    assert_eq!(report.steps, 2);
}

fn cilbench(args: &[&str]) -> Output {
    let small = [
        "--train-per-class",
        "6",
        "--test-per-class",
        "5",
        "--set",
        "epochs=1",
        "--set",
        "batch_size=4",
        "--tasks",
        "2",
    ];
    Command::new(env!("CARGO_BIN_EXE_cilbench"))
        .arg("parity")
        .args(args)
        .args(small)
        .output()
        .expect("the command starts")
}

#[test]
fn the_command_says_where_two_methods_part_and_exits_with_one() {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let same = cilbench(&["lora", "lora"]);
    let (out, err) = (text(&same.stdout), text(&same.stderr));
    assert!(same.status.success(), "{err}");
    for part in [
        "loss ce",
        "state (trained)",
        "CLS tokens",
        "lora and lora agree within 0.001 over 2 tasks, 6 steps",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let other = cilbench(&["lora", "lora", "--set-b", "learning_rate=0.01"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(
        text(&other.stderr).contains("lora and lora part at task 1, epoch 1, step 2: loss ce is "),
        "{}",
        text(&other.stderr)
    );
    for (more, expected) in [
        (&["lora", "lora", "--set-b", "rank=3"][..], "part at task 1, as it begins: state"),
        (
            &["lora", "lora", "--set-b", "epochs=2"],
            "part at task 1, as it begins: plan is Plan { epochs: 1",
        ),
        (&["lora", "er"], "part at"),
    ] {
        let output = cilbench(more);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(text(&output.stderr).contains(expected), "{more:?}: {}", text(&output.stderr));
    }
    for (more, expected) in [
        (&["lora", "lroa"][..], "did you mean 'lora'"),
        (&["lora", "lora", "--tolerance", "nan"], "--tolerance NaN"),
    ] {
        let output = cilbench(more);
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(text(&output.stderr).contains(expected), "{more:?}: {}", text(&output.stderr));
    }
}
