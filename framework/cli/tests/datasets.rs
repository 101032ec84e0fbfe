//! The user's own data sets, the messages about bad ones, and backbones from the hub.

#[path = "../../core/tests/hub_server/mod.rs"]
mod hub_server;
#[path = "../../../benchmarks/tests/parquet_file/mod.rs"]
mod parquet_file;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hub_server::{Answer, COMMIT, Server, good};

struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(&path, bytes).expect("file");
        path
    }

    /// An image whose colour tells its class.
    fn image(&self, name: &str, class: usize, i: usize) {
        let colour = [(class * 80) as u8, (255 - class * 60) as u8, (i * 9) as u8];
        let image = image::RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb(colour.map(|c| c.wrapping_add((x * 3 + y * 5) as u8 % 40)))
        });
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        image.save(path).expect("image");
    }

    fn cilbench(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cilbench"))
            .args(args)
            .current_dir(self.folder.path())
            .env("HF_HOME", self.path("hf"))
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env_remove("HF_HUB_OFFLINE")
            .output()
            .expect("the command starts")
    }

    fn record(&self, run: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path(run).join("run.json")).expect("run.json"))
            .expect("JSON")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let message = said(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

/// Four classes in two domains.
fn domains(home: &Home) {
    for domain in ["photo", "sketch"] {
        for (class, name) in ["cat", "dog", "owl", "fox"].iter().enumerate() {
            (0..4).for_each(|i| home.image(&format!("my/{domain}/train/{name}/{i}.png"), class, i));
            (4..6).for_each(|i| home.image(&format!("my/{domain}/test/{name}/{i}.jpg"), class, i));
        }
    }
}

#[test]
fn a_folder_of_one_s_own_is_run_class_and_domain_incrementally_from_toml_alone() {
    let home = Home::new();
    domains(&home);
    home.write(
        "dil.toml",
        b"dataset = 'folder'\nkind = 'domain-incremental'\ndomains = ['sketch', 'photo']\ndata_root = 'my'\nimage_size = 32\n",
    );
    home.write("cil.toml", b"dataset = 'folder'\ntasks = [['owl', 'cat'], ['dog']]\ndata_root = 'my'\nimage_size = 32\n");
    let small = ["--epochs", "1", "--batch-size", "4"];
    let run = |scenario: &str, out: &str, method: &str| {
        home.cilbench(
            &[&["run", "--scenario", scenario, "--out", out, "--method", method], &small[..]]
                .concat(),
        )
    };
    let text = done(&run("dil.toml", "runs/dil", "sr2-lora"));
    assert!(text.contains("task 1/2: sketch: cat, dog, fox, owl; 16 images"), "{text}");
    let dil = home.record("runs/dil");
    assert_eq!(dil["identity"]["scenario"]["domains"], serde_json::json!(["sketch", "photo"]));
    assert_eq!(dil["identity"]["scenario"]["images"], serde_json::json!([[16, 8], [16, 8]]));
    // The same command again, from another folder: the scenario's path was written down whole.
    let again = home.cilbench(&["run", "--resume", "runs/dil"]);
    assert!(done(&again).contains("finished already"));
    let text = done(&run("cil.toml", "runs/cil", "lora"));
    assert!(text.contains("1 of 4 classes are in no task and left out"), "{text}");
    assert_eq!(
        home.record("runs/cil")["identity"]["scenario"]["tasks"],
        serde_json::json!([[3, 0], [1]])
    );
}

#[test]
fn data_check_counts_and_names_every_damaged_image_and_changes_nothing() {
    let home = Home::new();
    domains(&home);
    home.write("my.toml", b"dataset = 'folder'\ntasks = 3\ndata_root = 'my'\n");
    let text = done(&home.cilbench(&["data", "check", "my.toml"]));
    assert!(
        text.contains(
            "4 classes do not divide into 3 tasks: the first 1 get 2 classes, the other 2 get 1"
        ),
        "{text}"
    );
    assert!(text.contains("decoded 48 images") && text.contains("whole"), "{text}");
    let whole = std::fs::read(home.path("my/photo/train/cat/0.png")).expect("image");
    home.write("my/photo/train/cat/cut.png", &whole[..whole.len() / 2]);
    home.write("my/photo/train/cat/empty.jpg", b"");
    home.write("my/sketch/test/owl/text.jpg", b"this is a text");
    let jpeg = std::fs::read(home.path("my/photo/test/cat/4.jpg")).expect("image");
    home.write("my/photo/test/cat/cut.jpg", &jpeg[..jpeg.len() / 2]);
    let output = home.cilbench(&["data", "check", "my.toml"]);
    refused(
        &output,
        1,
        &[
            "cat/cut.png: the image cannot be decoded",
            "cat/empty.jpg: the image has no bytes",
            "owl/text.jpg",
            "test/cat/cut.jpg",
            "4 problem(s)",
        ],
    );
    assert_eq!(
        std::fs::read(home.path("my/sketch/test/owl/text.jpg")).expect("file"),
        b"this is a text"
    );
    // A run meets the same images, and names the first.
    refused(
        &home.cilbench(&["run", "--scenario", "my.toml", "--epochs", "1", "--image-size", "32"]),
        1,
        &["my/"],
    );
}

#[test]
fn what_is_wrong_with_a_manifest_is_named_with_its_line() {
    let home = Home::new();
    let mut good = String::from("path,label,split\n");
    for i in 0..6 {
        home.image(&format!("images/{i}.png"), i % 2, i);
        writeln!(good, "images/{i}.png,{},{}", i % 2, if i < 4 { "train" } else { "test" })
            .expect("text");
    }
    home.write("my.toml", b"dataset = 'manifest'\nmanifest = 'list.csv'\ntasks = 2\n");
    let check = |list: &str| {
        home.write("list.csv", list.as_bytes());
        home.cilbench(&["data", "check", "my.toml"])
    };
    done(&check(&good));
    refused(
        &check(&format!("{good}images/9.png,0,train\n")),
        1,
        &["not there: ", "images/9.png", "list.csv, line 8"],
    );
    let run = home.cilbench(&["run", "--scenario", "my.toml", "--image-size", "32"]);
    refused(&run, 1, &["images/9.png", "list.csv, line 8", "data check"]);
    refused(
        &check(&format!("{good}images/0.png,0,test\n")),
        1,
        &["the same image twice, train and test", "line 2", "line 8"],
    );
    refused(
        &check(&format!("{good}images/0.png,1,train\n")),
        1,
        &["the same image twice, train and train"],
    );
    refused(
        &check("images/0.png,0,train\nimages/1.png,1,train\nimages/2.png,0,test\n"),
        1,
        &["class 1", "has no test image"],
    );
    refused(
        &check(&good.replace("images/3.png,1", "images/3.png,3")),
        1,
        &["class 2", "has no train image"],
    );
    refused(
        &check(&good.replace("images/3.png,1,train", "images/3.png,1")),
        1,
        &["list.csv: line 5: 2 columns"],
    );
}

#[test]
fn a_scenario_that_does_not_fit_is_named() {
    let home = Home::new();
    domains(&home);
    let check = |text: &str| {
        home.write("my.toml", text.as_bytes());
        home.cilbench(&["data", "check", "my.toml", "--data-root", "my"])
    };
    refused(
        &check("dataset = 'folder'\ntask = 2"),
        2,
        &["my.toml: unknown key 'task'", "did you mean 'tasks'"],
    );
    refused(&check("dataset = 'folder'\ntasks = 9"), 2, &["tasks = 9", "4 classes"]);
    refused(
        &check("dataset = 'folder'\ntasks = [['cat'], ['dogg']]"),
        2,
        &["unknown class 'dogg'", "did you mean 'dog'"],
    );
    refused(
        &check("dataset = 'folder'\ntasks = [['cat'], ['cat']]"),
        2,
        &["class 'cat' is in task 1 and in task 2"],
    );
    refused(
        &check("dataset = 'folder'\nkind = 'domain-incremental'\ndomains = ['foto']"),
        2,
        &["unknown domain 'foto'", "'photo'"],
    );
    refused(
        &check("dataset = 'folder'\ntasks = 2\nsplit = 'coda'"),
        2,
        &["unknown split of data set folder 'coda'"],
    );
    refused(&check("dataset = 'foldr'\ntasks = 2"), 2, &["unknown data set 'foldr'", "'folder'"]);
    refused(
        &home.cilbench(&["run", "--scenario", "none.toml"]),
        2,
        &["none.toml: there is no such file"],
    );
    // The wrong data set, a file, and nothing at all.
    refused(
        &home.cilbench(&["run", "--scenario", "imagenet-r-20", "--data-root", "my"]),
        2,
        &["imagenet-r was not found", "n01443537"],
    );
    refused(
        &home.cilbench(&["run", "--scenario", "cifar100-10", "--data-root", "my.toml"]),
        2,
        &["this is a file, not a folder"],
    );
    refused(
        &home.cilbench(&["run", "--scenario", "cub200-5", "--data-root", "absent"]),
        2,
        &["there is no such folder"],
    );
    refused(
        &home.cilbench(&["run", "--scenario", "cifar100-10"]),
        1,
        &["cannot be reached", "--data-root DIR", "uoft-cs/cifar100"],
    );
    refused(
        &home.cilbench(&["run", "--scenario", "cifar100-10", "--offline"]),
        2,
        &["--offline", "--data-root DIR"],
    );
    refused(&home.cilbench(&["data", "fetch", "domainnet"]), 2, &["ai.bu.edu/M3SDA"]);
}

#[test]
fn a_backbone_is_taken_from_the_hub_by_name_with_its_normalisation() {
    let home = Home::new();
    let weights = std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/weights/vit_nano.safetensors"),
    )
    .expect("weights");
    let config = br#"{"architecture": "vit_nano", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}"#;
    let server = Server::new(move |asked, _| {
        if asked.path.starts_with("/timm/vit_nano.ours/resolve/")
            && asked.path.ends_with("/config.json")
        {
            let etag = hub_server::sha256(config);
            return Answer {
                status: 200,
                headers: vec![("x-repo-commit".into(), COMMIT.into()), ("etag".into(), etag)],
                body: config.to_vec(),
                ..Answer::default()
            };
        }
        good(asked, "model.safetensors", &weights)
    });
    let run = |out: &str, more: &[&str]| {
        let mut args = vec![
            "run",
            "--backbone",
            "vit_nano.ours",
            "--out",
            out,
            "--method",
            "simplecil",
            "--train-per-class",
            "4",
            "--test-per-class",
            "4",
        ];
        args.extend(more);
        Command::new(env!("CARGO_BIN_EXE_cilbench"))
            .args(args)
            .current_dir(home.folder.path())
            .env("HF_HOME", home.path("hf"))
            .env("HF_ENDPOINT", &server.address)
            .env_remove("HF_HUB_OFFLINE")
            .output()
            .expect("the command starts")
    };
    done(&run("a", &[]));
    let record = home.record("a");
    assert_eq!(
        record["identity"]["backbone_options"]["source"],
        format!("timm/vit_nano.ours@{COMMIT}")
    );
    assert_eq!(record["identity"]["backbone"]["mean"], serde_json::json!([0.5, 0.5, 0.5]));
    done(&run("b", &["--offline", "--mean", "0,0,0", "--std", "1,1,1"]));
    assert_eq!(home.record("b")["identity"]["backbone"]["std"], serde_json::json!([1.0, 1.0, 1.0]));
    refused(&run("c", &["--backbone", "vit_other"]), 2, &["cannot be used multiple times"]);
    let other = home.cilbench(&["run", "--backbone", "vit_other", "--offline"]);
    refused(&other, 2, &["timm/vit_other", "not in the cache", "use --weights FILE"]);
    refused(
        &home.cilbench(&["run", "--backbone", "resnet50"]),
        2,
        &["unknown backbone 'resnet50'", "vit_base_patch16_224"],
    );
}

#[test]
fn a_data_set_is_fetched_from_the_hub_and_then_found_without_a_data_root() {
    let home = Home::new();
    for (split, n) in [("train", 40), ("test", 20)] {
        let images: Vec<_> = (0..n)
            .map(|i| {
                home.image("one.png", i % 10, i);
                (std::fs::read(home.path("one.png")).expect("image"), format!("{i}.png"))
            })
            .collect();
        let labels: Vec<i64> = (0..n as i64).map(|i| i % 10).collect();
        let beside = parquet_file::Beside::Integers("label", &labels);
        parquet_file::write(
            &home.path(&format!("{split}-00000-of-00001.parquet")),
            "image",
            &images,
            beside,
        );
    }
    let folder = home.folder.path().to_path_buf();
    let server = Server::new(move |asked, _| {
        if asked.path == "/api/datasets/zalando-datasets/fashion_mnist/revision/main" {
            let names = [
                "README.md",
                "fashion_mnist/train-00000-of-00001.parquet",
                "fashion_mnist/test-00000-of-00001.parquet",
            ];
            let siblings: Vec<_> =
                names.iter().map(|n| serde_json::json!({ "rfilename": n })).collect();
            let body =
                serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string().into_bytes();
            return Answer { status: 200, body, ..Answer::default() };
        }
        let name = asked.path.rsplit('/').next().expect("name");
        let Ok(body) = std::fs::read(folder.join(name)) else {
            return Answer { status: 404, ..Answer::default() };
        };
        let headers = vec![
            ("x-repo-commit".into(), COMMIT.into()),
            ("etag".into(), hub_server::sha256(&body)),
        ];
        Answer { status: 200, headers, body, ..Answer::default() }
    });
    let cilbench = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cilbench"));
        let command = command
            .args(args)
            .current_dir(home.folder.path())
            .env("HF_HOME", home.path("hf"))
            .env("HF_ENDPOINT", &server.address);
        command.env_remove("HF_HUB_OFFLINE").output().expect("the command starts")
    };
    home.write("my.toml", b"dataset = 'fashion-mnist'\ntasks = 5\n");
    let text = done(&cilbench(&["data", "fetch", "fashion-mnist"]));
    assert!(text.contains(&format!("zalando-datasets/fashion_mnist at commit {COMMIT}")), "{text}");
    done(&cilbench(&[
        "run",
        "--scenario",
        "my.toml",
        "--offline",
        "--method",
        "simplecil",
        "--image-size",
        "32",
        "--out",
        "run",
    ]));
    let record = home.record("run");
    assert_eq!(record["data_source"], format!("zalando-datasets/fashion_mnist@{COMMIT}"));
    assert_eq!(
        record["identity"]["scenario"]["images"],
        serde_json::json!([[8, 4], [8, 4], [8, 4], [8, 4], [8, 4]])
    );
    // What was fetched is a part of what the data set should be, and that is said.
    refused(
        &cilbench(&["data", "check", "my.toml", "--offline"]),
        1,
        &["40 training and 20 test images, expected 60000 and 10000"],
    );
}

#[test]
fn what_would_be_silently_wrong_in_a_folder_is_said() {
    let home = Home::new();
    domains(&home);
    home.write(
        "my.toml",
        b"dataset = 'folder'\nkind = 'domain-incremental'\ndata_root = 'my'\nimage_size = 32\n",
    );
    let check = || home.cilbench(&["data", "check", "my.toml"]);
    home.write("my/photo/train/cat/9.heic", b"x");
    home.write("my/__MACOSX/photo/train/cat/1.png", b"x");
    home.image("my/sketch/train/Cat/1.png", 0, 1);
    home.image("my/sketch/test/Cat/2.png", 0, 2);
    std::fs::copy(home.path("my/photo/train/dog/0.png"), home.path("my/photo/test/dog/9.png"))
        .expect("copy");
    let text = done(&check());
    for part in [
        "classes: Cat, cat, dog, fox, owl",
        "note: classes 'Cat' and 'cat' differ only in capitals",
        "note: domain photo has no training image of class Cat",
        "note: domain photo has no test image of class Cat",
        "note: left out: 1 .heic image (the first: photo/train/cat/9.heic)",
        "note: left out: 1 folder that an archive or a file server left behind (the first: __MACOSX)",
        "note: 2 image(s) for testing equal a training image, pixel by pixel (the first: my/photo/train/",
    ] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    let dry = done(&home.cilbench(&[
        "run",
        "--scenario",
        "my.toml",
        "--method",
        "simplecil",
        "--image-size",
        "32",
        "--dry-run",
    ]));
    assert!(dry.contains("domain photo has no training image of class Cat"), "{dry}");
    home.write("my/photo/train/elk/1.jxl", b"x");
    refused(
        &check(),
        1,
        &["photo/train/elk/1.jxl: class 'elk' has no training image that can be read"],
    );
}

#[test]
fn a_file_of_class_names_is_an_order_with_the_data_id_of_its_seed() {
    let home = Home::new();
    domains(&home);
    home.write("my.toml", b"dataset = 'folder'\ntasks = 2\ndata_root = 'my'\nimage_size = 32\n");
    let check = |order: &str| {
        done(&home.cilbench(&["data", "check", "my.toml", "--fast", "--class-order", order]))
    };
    let id = |text: &str| {
        text.split("data id ")
            .nth(1)
            .and_then(|t| t.split_whitespace().next())
            .expect("a data id")
            .to_owned()
    };
    let seeded = check("seed:1993");
    let names = seeded
        .lines()
        .filter_map(|l| l.strip_prefix("task ")?.split_once(": "))
        .flat_map(|(_, names)| names.split(", "));
    let text = names.fold(String::new(), |text, name| text + name + "\n");
    home.write("orders/mine.txt", text.as_bytes());
    assert_eq!(id(&check("orders/mine.txt")), id(&seeded), "{seeded}");
    home.write("orders/other.txt", text.lines().rev().collect::<Vec<_>>().join("\n").as_bytes());
    assert_ne!(id(&check("orders/other.txt")), id(&seeded));
    home.write("orders/short.txt", b"cat\nowl\n");
    let short = home.cilbench(&["data", "check", "my.toml", "--class-order", "orders/short.txt"]);
    refused(&short, 1, &["orders/short.txt: 2 of 4 classes are not named, the first 'dog'"]);
    let run = [
        "run",
        "--scenario",
        "my.toml",
        "--method",
        "simplecil",
        "--out",
        "runs/a",
        "--class-orders",
        "orders/mine.txt,orders/other.txt",
    ];
    done(&home.cilbench(&run));
    let folders: Vec<_> =
        walkdir(&home.path("runs/a")).into_iter().filter(|p| p.ends_with("run.json")).collect();
    assert_eq!(folders.len(), 2, "{folders:?}");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&folders[0]).expect("run.json")).expect("JSON");
    let order = record["identity"]["scenario"]["class_order"].as_str().expect("text");
    assert!(order.starts_with("listed:") && order.split(',').count() == 4, "{order}");
    // The file may be gone when the run is looked at again: the record holds the order.
    std::fs::remove_dir_all(home.path("orders")).expect("remove");
    done(&home.cilbench(&["leaderboard", "runs/a"]));
}

/// All files below a folder.
fn walkdir(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() { all.extend(walkdir(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

#[test]
fn only_images_that_the_scenario_uses_must_be_there() {
    let home = Home::new();
    let mut list = String::from("path,label,split\n");
    for i in 0..9 {
        let class = ["cat", "dog", "owl"][i % 3];
        if class != "owl" {
            home.image(&format!("images/{i}.png"), i % 3, i);
        }
        writeln!(list, "images/{i}.png,{class},{}", if i < 6 { "train" } else { "test" })
            .expect("text");
    }
    home.write("list.csv", list.as_bytes());
    home.write("my.toml", b"dataset = 'manifest'\nmanifest = 'list.csv'\ntasks = [['cat'], ['dog']]\nimage_size = 32\n");
    let text = done(&home.cilbench(&["data", "check", "my.toml"]));
    assert!(
        text.contains("note: 3 listed image(s) that no task uses are not there")
            && text.contains("decoded 6 images"),
        "{text}"
    );
    done(&home.cilbench(&["run", "--scenario", "my.toml", "--method", "simplecil", "--dry-run"]));
    home.write("my.toml", b"dataset = 'manifest'\nmanifest = 'list.csv'\ntasks = 3\n");
    refused(
        &home.cilbench(&["data", "check", "my.toml"]),
        1,
        &["not there: ", "images/2.png", "list.csv, line 4"],
    );
    // Labels that count from 1, and a list that is not there.
    home.write(
        "list.csv",
        b"images/0.png,1,train\nimages/1.png,2,train\nimages/3.png,1,test\nimages/4.png,2,test\n",
    );
    refused(
        &home.cilbench(&["data", "check", "my.toml"]),
        1,
        &["class 0 ('class 0') has no train image", "do they count from 1?"],
    );
    home.write("my.toml", b"dataset = 'manifest'\nmanifest = 'lists/none.csv'\ntasks = 3\n");
    refused(
        &home.cilbench(&["data", "check", "my.toml"]),
        2,
        &["manifest of the scenario's file", "lists/none.csv: there is no such file"],
    );
}
