//! Methods across the C ABI without a library: what a panic, a failure and a refusal become.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::abi::{self, Crossing};
use super::binary::Library;
use super::messages::{MethodOffer, Offer};
use super::{Kind, Plugin, export, register_offer};
use crate::array::Array;
use crate::conformance::trial::{Trial, backbone};
use crate::context::Placement;
use crate::context::{Context, Exemplar, Host, Law, MemoryRequest, PlainBatch, Reply, Request};
use crate::data::View;
use crate::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Player, Setup};
use crate::scenario::{Scenario, TaskInfo};
use crate::{Error, Result};

/// Asks for everything, and panics or fails where its hyper-parameter says.
struct Curious {
    fault: String,
}

#[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default)]
struct Config {
    /// Where it fails.
    fault: String,
}

impl Method for Curious {
    type Config = Config;
    crate::model!();
    const ABOUT: About = About {
        name: "curious",
        summary: "asks for everything",
        access: Access::Memory,
        trains: "nothing",
        ..About::DEFAULT
    };

    fn new(config: Config, _: Setup) -> Result<Self> {
        match config.fault.as_str() {
            "refuse" => Err(Error::usage("fault = \"refuse\": choose another")),
            "panic-in-new" => panic!("no such luck"),
            _ => Ok(Self { fault: config.fault }),
        }
    }

    fn plan(&self, _: &TaskInfo) -> Result<Plan> {
        assert!(self.fault != "plan", "no plan");
        Ok(Plan::epochs(1, 2, View::Train))
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        assert!(self.fault != "begin", "cannot begin with {}", task.class_names.join(" and "));
        let normal = ctx.draw("weights", &[2, 3], Law::Normal)?;
        let uniform = ctx.draw("bounds", &[1], Law::Uniform { low: -1.0, high: 2.5 })?;
        let order = ctx.permutation("order", 4)?;
        let given = ctx.given("pairs")?.expect("the host gives them");
        ctx.probe("normal", || Ok(normal.clone()))?;
        ctx.probe("sum", || {
            Ok((uniform.get(0)? + given.to_dtype(DType::F32, &Device::Cpu)?.sum_all()?)?)
        })?;
        let mut images = 0;
        ctx.pass(View::Test, 2, |batch| {
            images += batch.host_labels.len();
            Ok(())
        })?;
        assert_eq!((images, order.to_vec1::<i64>()?), (2, vec![3, 1, 0, 2]));
        let stored = ctx.memorise(&[1, 0], Some(&normal))?;
        assert_eq!(stored[0].payload.as_ref().map(|p| p.shape.clone()), Some(vec![3]));
        assert_eq!(ctx.exemplars()?, stored);
        assert_eq!(ctx.recall(&[stored[0].id], View::Train)?.positions, [7]);
        ctx.memorise(&[1], None)?;
        ctx.forget(&[stored[0].id])
    }

    fn observe(&mut self, _: &Batch, _: &TaskInfo, _: &mut Context) -> Result<Losses> {
        Ok(Losses(vec![("a".into(), 0.5), ("b".into(), f64::NAN)]))
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        ctx.exemplars().map(drop)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        Ok(images.flatten_from(1)?.narrow(1, 0, 2)?)
    }
}

/// Answers every request once, and remembers it.
struct Answers(Vec<Request>);

impl Host for Answers {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        let stored = |payload| vec![Exemplar { id: 7, label: 1, task: 0, payload }];
        let batch = || PlainBatch {
            images: Array::from_f32([1, 3, 1, 2], &[0.5; 6]),
            labels: vec![1],
            positions: vec![7],
        };
        let passes = self.0.iter().filter(|r| matches!(r, Request::NextBatch { .. })).count();
        self.0.push(request.clone());
        Ok(match request {
            Request::Draw { law: Law::Permutation, .. } => {
                Reply::Array(Array::from_i64(&[3, 1, 0, 2]))
            }
            Request::Draw { shape, .. } => {
                Reply::Array(Array::from_f32(shape.clone(), &vec![1.5; shape.iter().product()]))
            }
            Request::Given { .. } => Reply::Given(Some(Array::from_f32([2], &[1.0, 2.0]))),
            Request::OpenPass { .. } => Reply::Pass(3),
            Request::NextBatch { .. } => Reply::Batch((passes < 2).then(batch)),
            Request::Probe { .. } | Request::Memory(MemoryRequest::Remove { .. }) => Reply::Done,
            Request::Memory(MemoryRequest::Insert { payload, .. }) => {
                Reply::Exemplars(stored(payload.map(|_| Array::from_f32([3], &[1.0, 2.0, 3.0]))))
            }
            Request::Memory(MemoryRequest::List) => {
                Reply::Exemplars(stored(Some(Array::from_f32([3], &[1.0, 2.0, 3.0]))))
            }
            Request::Memory(MemoryRequest::Read { .. }) => Reply::Batch(Some(batch())),
        })
    }

    fn probing(&self) -> bool {
        true
    }
}

/// Fails every request in a way of its own.
struct Refuses;

impl Host for Refuses {
    fn answer(&mut self, _: Request) -> Result<Reply> {
        Err(Error::file("images/7.png", "damaged"))
    }
}

fn entry() -> &'static MethodEntry {
    static ENTRY: std::sync::OnceLock<&'static MethodEntry> = std::sync::OnceLock::new();
    ENTRY.get_or_init(|| {
        let method = export::method::<Curious>(&[]);
        let about = Curious::ABOUT;
        let offered = MethodOffer {
            name: about.name.into(),
            version: about.version.into(),
            summary: about.summary.into(),
            paper: about.paper.into(),
            access: about.access,
            trains: about.trains.into(),
            presets: about.presets.into(),
            trial_settings: about.trial.settings.into(),
            fields: crate::config::fields_to_json(&crate::config::fields::<Config>()),
        };
        let offer = Offer {
            protocol: 2,
            revision: 0,
            name: "asking".into(),
            version: "0.1".into(),
            methods: vec![offered],
        };
        let plugin = Plugin {
            kind: Kind::Binary,
            name: "asking".into(),
            version: "0.1".into(),
            protocol: 2,
            sha256: "0".repeat(64),
        };
        let library =
            Arc::new(Library { methods: vec![("curious".to_owned(), method)], revision: 0 });
        register_offer(&offer, &plugin, "asking.so", library).expect("a free name")[0]
    })
}

fn build(fault: &str) -> Result<Box<dyn Player>> {
    let layer = crate::config::Layer {
        origin: "test".into(),
        table: toml::Table::from_iter([("fault".to_owned(), fault.into())]),
    };
    let setup =
        Setup { backbone: Box::new(backbone(DType::F32)?), placement: Placement::cpu(DType::F32) };
    entry().build(&entry().configure("", &[layer])?, setup)
}

fn task() -> TaskInfo {
    let mut scenario = Trial::default().scenario().expect("a scenario");
    scenario.next_task().expect("a task").expect("a first one").info
}

#[test]
fn every_request_crosses_as_it_was_meant() {
    let (mut method, mut host) = (build("").expect("built"), Answers(Vec::new()));
    let task = task();
    method.begin_task(&task, &mut host).expect("all its assertions hold");
    let probes: Vec<_> = host
        .0
        .iter()
        .filter_map(|r| {
            if let Request::Probe { name, value } = r { Some((name.as_str(), value)) } else { None }
        })
        .collect();
    assert_eq!(
        probes,
        [
            ("normal", &Array::from_f32([2, 3], &[1.5; 6])),
            ("sum", &Array::from_f32(Vec::new(), &[4.5]))
        ]
    );
    let draws: Vec<_> = host.0.iter().filter(|r| matches!(r, Request::Draw { .. })).collect();
    assert_eq!(
        *draws[1],
        Request::Draw {
            name: "bounds".into(),
            shape: vec![1],
            law: Law::Uniform { low: -1.0, high: 2.5 }
        }
    );
    assert!(
        host.0.contains(&Request::Memory(MemoryRequest::Insert {
            positions: vec![1],
            payload: None
        }))
    );
    assert!(host.0.contains(&Request::Memory(MemoryRequest::Remove { ids: vec![7] })));
    assert!(host.0.contains(&Request::OpenPass { view: View::Test, batch_size: 2 }));
    assert_eq!(method.plan(&task).expect("a plan"), Plan::epochs(1, 2, View::Train));
    let images = Tensor::new(&[[[[0.25f32, 0.5]], [[0.0, 1.0]], [[0.5, 0.75]]]], &Device::Cpu)
        .expect("images");
    assert_eq!(
        method.predict(&images).expect("logits").to_vec2::<f32>().expect("values"),
        [[0.25, 0.5]]
    );
    assert!(method.cls_tokens(&images).expect("none").is_none());
}

#[test]
fn panics_and_failures_name_plugin_and_call() {
    let text = |fault: &str| build(fault).err().expect("must fail").to_string();
    assert_eq!(
        text("refuse"),
        "plugin asking (asking.so), in build: fault = \"refuse\": choose another"
    );
    assert!(matches!(build("refuse"), Err(Error::Usage(_))));
    assert_eq!(text("panic-in-new"), "plugin asking (asking.so), in build: panicked: no such luck");
    let task = task();
    let begin = |fault: &str, host: &mut dyn Host| {
        build(fault).expect("built").begin_task(&task, host).expect_err("must fail")
    };
    let error = begin("begin", &mut Answers(Vec::new())).to_string();
    assert!(
        error.starts_with(
            "plugin asking (asking.so), in begin_task: panicked: cannot begin with class"
        ),
        "{error}"
    );
    let error = build("plan").expect("built").plan(&task).expect_err("must fail");
    assert_eq!(error.to_string(), "plugin asking (asking.so), in plan: panicked: no plan");
    // What the harness itself failed with comes back as it was.
    let error = begin("", &mut Refuses);
    assert!(matches!(&error, Error::File { what, .. } if what == "damaged"), "{error}");
}

#[test]
fn a_message_with_a_key_that_is_not_of_the_protocol_is_refused() {
    let refused = |text: Result<(), serde_json::Error>, key: &str| {
        let error = text.expect_err("must be refused").to_string();
        assert!(error.contains(&format!("unknown field `{key}`")), "{error}");
    };
    let offer = r#"{"protocol": 2, "revision": 1, "name": "n", "version": "1", "methods": [], "presset": ""}"#;
    refused(serde_json::from_str::<Offer>(offer).map(drop), "presset");
    refused(
        serde_json::from_str::<Plan>(
            r#"{"epochs": 1, "batch_size": 2, "view": "train", "lr": 0.1}"#,
        )
        .map(drop),
        "lr",
    );
}

/// What `create` of the exported method says of a setup.
fn created(change: impl FnOnce(&mut abi::CilSetup, &mut abi::CilBackbone)) -> String {
    let text = |text: &'static std::ffi::CStr| text.as_ptr();
    let mut backbone = abi::CilBackbone {
        entry: text(c"no-such-kind"),
        name: text(c"some"),
        weights_hash: text(c""),
        ..abi::CilBackbone::empty()
    };
    let mut setup = abi::CilSetup {
        config: text(c"{}"),
        device: text(c"cpu"),
        dtype: abi::F32,
        revision: 4,
        ..abi::CilSetup::empty()
    };
    change(&mut setup, &mut backbone);
    setup.backbone = &raw const backbone;
    let create = export::method::<Curious>(&[]).create.expect("exported");
    let mut instance = std::ptr::null_mut();
    // SAFETY: setup and backbone are whole, and the text of a failure lives until the next call.
    unsafe {
        let status = create(&raw const setup, &raw mut instance);
        assert_ne!(status.code, abi::OK);
        std::ffi::CStr::from_ptr(status.text).to_string_lossy().into_owned()
    }
}

#[test]
fn a_plugin_refuses_what_a_later_harness_requires() {
    let refused = |name: &str| {
        format!(
            "from the harness: {name} requires 'later', which this plugin (ABI 2.0) does not know \
             and the harness (ABI 2.4) does: rebuild the plugin against it"
        )
    };
    assert!(created(|_, _| {}).contains("no-such-kind"), "the setup itself is understood");
    let text = created(|setup, _| setup.required = c"dtype, later".as_ptr());
    assert_eq!(text, refused("CilSetup"));
    let text = created(|_, backbone| backbone.required = c"later".as_ptr());
    assert_eq!(text, refused("CilBackbone"));
    let text = created(|setup, _| setup.size = 16);
    assert!(text.starts_with("from the harness: CilSetup: its size is 16"), "{text}");
}
