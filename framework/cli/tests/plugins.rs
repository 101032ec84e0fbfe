//! Binary plugins are scored like other methods, and a built-in method as a plugin gives the same
//! bits. A plugin with a fault is named with its fault and scores nothing.
#![cfg(target_os = "linux")]

mod faulty;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn cilbench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cilbench"));
    command.args(args).env_remove("CILBENCH_PLUGINS");
    command
}

/// A run of 5 tasks, 6 images a class.
fn run(plugin: &Path, method: &str, out: &Path, more: &[&str]) -> Command {
    let mut command =
        cilbench(&["run", "--method", method, "--train-per-class", "6", "--test-per-class", "5"]);
    command.arg("--plugin").arg(plugin).arg("--out").arg(out).args(more);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn output(mut command: Command) -> Output {
    command.output().expect("the command starts")
}

fn succeeded(command: Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), text(&output.stdout));
    text(&output.stdout) + &text(&output.stderr)
}

/// Fails with this exit code and one message that holds all of `expected`.
fn refused(command: Command, code: i32, expected: &[&str]) -> String {
    let output = output(command);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}\n{}", text(&output.stdout));
    for part in expected {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    assert!(!message.contains("panicked at"), "{message}");
    message
}

fn record(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(out.join("run.json")).expect("run.json")).expect("JSON")
}

/// A plugin of this workspace: cargo builds it with this test.
fn built(name: &str) -> PathBuf {
    std::env::current_exe()
        .expect("a path")
        .parent()
        .expect("a folder")
        .join(format!("lib{name}.so"))
}

#[test]
fn a_library_is_listed_scored_and_recorded_with_its_hash() {
    let folder = tempfile::tempdir().expect("folder");
    let c = faulty::sound(folder.path());
    for (plugin, method) in
        [(built("nearest_mean_binary"), "nearest-mean-binary"), (c, "nearest-mean-c")]
    {
        let name = plugin.to_str().expect("a path");
        let hash = cilbench::sha256(&std::fs::read(&plugin).expect("the library"));
        for args in [["list", "methods"], ["describe", method], ["plugin", "list"]] {
            let shown = succeeded(cilbench(&[&args[..], &["--plugin", name]].concat()));
            assert!(shown.contains(method), "{shown}");
            assert!(shown.contains(&hash) && shown.contains("ABI 2"), "{shown}");
        }
        let out = folder.path().join(method);
        succeeded(run(&plugin, method, &out, &["--audit"]));
        let found = record(&out);
        assert!(
            found["last"].as_f64().expect("last") > 40.0,
            "four times better than chance: {}",
            found["last"]
        );
        let recorded = &found["identity"]["plugin"];
        assert_eq!(recorded["sha256"], hash.as_str());
        assert_eq!(
            (recorded["kind"].as_str(), recorded["protocol"].as_u64()),
            (Some("binary"), Some(2))
        );
        // The folder knows the plugin: nothing needs to be said again.
        let again = succeeded(cilbench(&["run", "--resume", out.to_str().expect("a path")]));
        assert!(again.contains("finished already"), "{again}");
        let again = succeeded(cilbench(&["reproduce", out.to_str().expect("a path")]));
        assert!(again.contains("bit-identical"), "{again}");
        let csv = folder.path().join("rows.csv");
        succeeded(cilbench(&[
            "leaderboard",
            out.to_str().expect("a path"),
            "--export",
            csv.to_str().expect("a path"),
        ]));
        assert!(std::fs::read_to_string(&csv).expect("rows").contains(&hash));
    }
}

#[test]
fn plugins_are_found_by_the_configuration_file_and_in_the_folder() {
    let folder = tempfile::tempdir().expect("folder");
    faulty::sound(folder.path());
    let mut command = cilbench(&["list", "methods"]);
    command.env("CILBENCH_PLUGINS", folder.path());
    assert!(succeeded(command).contains("nearest-mean-c"));
    let config = folder.path().join("my.toml");
    std::fs::write(&config, "plugins = ['libnearest_mean_c.so']\n").expect("written");
    let args = [
        "run",
        "--method",
        "nearest-mean-c",
        "--dry-run",
        "--config",
        config.to_str().expect("a path"),
    ];
    assert!(succeeded(cilbench(&args)).contains("nearest-mean-c"));
    std::fs::write(&config, "plugins = 'libnearest_mean_c.so'\n").expect("written");
    refused(cilbench(&args), 2, &["my.toml: plugins: expected a list"]);
    let mut command = cilbench(&["list", "methods"]);
    command.env("CILBENCH_PLUGINS", folder.path().join("nowhere"));
    refused(command, 2, &["CILBENCH_PLUGINS=", "nowhere"]);
}

#[test]
fn a_built_in_method_as_a_plugin_gives_the_same_bits() {
    let folder = tempfile::tempdir().expect("folder");
    let plugin = built("builtin_binary");
    let (own, other, apart) =
        (folder.path().join("own"), folder.path().join("other"), folder.path().join("apart"));
    let small = ["--epochs", "2", "--batch-size", "4"];
    succeeded(run(&plugin, "lora", &own, &small));
    succeeded(run(&plugin, "lora-binary", &other, &small));
    succeeded(run(&plugin, "lora-binary", &apart, &[&small[..], &["--isolate"]].concat()));
    let (own_record, losses) = (record(&own), |out: &Path| {
        std::fs::read_to_string(out.join("metrics.jsonl")).expect("losses")
    });
    for out in [&other, &apart] {
        let found = record(out);
        for key in
            ["accuracy_matrix", "last", "relation_drift", "trained_parameters", "carried_bytes"]
        {
            assert_eq!(own_record[key], found[key], "{key}");
        }
        for (a, b) in own_record["tasks"]
            .as_array()
            .expect("tasks")
            .iter()
            .zip(found["tasks"].as_array().expect("tasks"))
        {
            assert_eq!(a["state_hash"], b["state_hash"]);
        }
        assert_eq!(losses(&own), losses(out));
    }
    assert_eq!(
        record(&other)["identity"],
        record(&apart)["identity"],
        "in a process of its own it is the same run"
    );
}

#[test]
fn what_is_no_plugin_of_this_version_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path();
    let refuse = |file: &Path, code, expected: &[&str]| {
        let name = file.to_str().expect("a path");
        let expected = [&[name][..], expected].concat();
        refused(cilbench(&["list", "methods", "--plugin", name]), code, &expected);
        refused(cilbench(&["plugin", "check", name]), code, &expected);
    };
    refuse(&place.join("nowhere.so"), 2, &["there is no such file"]);
    let words = place.join("words.so");
    std::fs::write(&words, "not a library").expect("written");
    refuse(&words, 1, &["not a dynamic library"]);
    let source = place.join("empty.c");
    std::fs::write(&source, "int nothing;").expect("written");
    let empty = place.join("empty.so");
    faulty::compile(&source, &empty, &[]);
    refuse(&empty, 1, &["no function cilbench_plugin"]);
    std::fs::write(
        &source,
        "void nowhere(void); void *cilbench_plugin(void) { nowhere(); return 0; }",
    )
    .expect("written");
    faulty::compile(&source, &empty, &[]);
    refuse(&empty, 1, &["cannot load", "nowhere"]);
    std::fs::write(&source, "void *cilbench_plugin(void) { return 0; }").expect("written");
    faulty::compile(&source, &empty, &[]);
    refuse(&empty, 1, &["null pointer"]);

    let sound = std::fs::read(faulty::sound(place)).expect("the library");
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        let file = place.join(name);
        std::fs::write(&file, bytes).expect("written");
        file
    };
    let other = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    refuse(&changed("machine.so", &|b| b[18] = other), 2, &["built for", "this machine is"]);
    refuse(&changed("bits.so", &|b| b[4] = 1), 2, &["32 bits"]);
    refuse(&changed("object.so", &|b| b[16] = 1), 1, &["not a dynamic library"]);
    refuse(&changed("cut.so", &|b| b.truncate(9000)), 1, &["truncated"]);

    let text = "the plugin speaks ABI 1 and this cilbench speaks ABI 2: rebuild the plugin against";
    refuse(&faulty::with(place, "plugin.abi=1"), 2, &[text]);
    let text = "the plugin speaks ABI 99 and this cilbench speaks ABI 2: update cilbench";
    refuse(&faulty::with(place, "plugin.abi=99"), 2, &[text]);
    refuse(
        &faulty::with(place, "plugin.size=0"),
        1,
        &["CilPlugin: its size is 0", "sizeof(CilPlugin)"],
    );
    refuse(
        &faulty::with(place, "method.size=8"),
        1,
        &["CilMethod: its size is 8", "sizeof(CilMethod)"],
    );
    for (fault, name) in [("plugin", "CilPlugin"), ("method", "CilMethod")] {
        let fault = format!("{fault}.required=\"later\", plugin.revision=3");
        let text = format!(
            "{name} requires 'later', which this cilbench (ABI 2.0) does not know and the plugin \
             (ABI 2.3) does: update cilbench"
        );
        refuse(&faulty::with(place, &fault), 1, &[&text]);
    }
    refuse(
        &faulty::with(place, "method.name=0"),
        1,
        &["null pointer where a method's name should be"],
    );
    refuse(
        &faulty::with(place, "plugin.name=0"),
        1,
        &["null pointer where the plugin's name should be"],
    );
    refuse(
        &faulty::with(place, "method.predict=0"),
        1,
        &["null pointer where the function predict"],
    );
    refuse(&faulty::with(place, "method.access=9"), 1, &["no access 9"]);
    refuse(&faulty::with(place, "method.fields=\"{}\""), 1, &["hyper-parameters", "expected ["]);
    refuse(&faulty::with(place, "plugin.method_count=0"), 1, &["no method in it"]);
    refuse(
        &faulty::with(place, "method.name=\"lora\""),
        2,
        &["'lora' is taken", "built in (crate cilbench_methods)"],
    );
    let (a, b) =
        (faulty::with(place, "method.version=\"a\""), faulty::with(place, "method.version=\"b\""));
    let args = [
        "list",
        "methods",
        "--plugin",
        a.to_str().expect("a path"),
        "--plugin",
        b.to_str().expect("a path"),
    ];
    refused(
        cilbench(&args),
        2,
        &[b.to_str().expect("a path"), "is taken", a.to_str().expect("a path")],
    );
    // The same one twice is no conflict.
    succeeded(cilbench(&["list", "methods", "--plugin", args[3], "--plugin", args[3]]));
}

#[test]
fn a_plugin_that_breaks_a_rule_is_not_scored() {
    let folder = tempfile::tempdir().expect("folder");
    for (fault, more, expected) in [
        ("method.predict=nan_logits", "", "not finite"),
        ("method.predict=wide_logits", "", "in predict: answered with shape"),
        ("method.predict=one_class_less", "", "classes seen"),
        ("method.predict=null_logits", "", "in predict: a null pointer where logits should be"),
        ("method.restore=forgetful", "--audit", "in restore: 'means' is not as it was"),
        ("method.restore=refuses", "--audit", "in restore: this state is not mine"),
        ("method.begin_task=speechless", "", "in begin_task: failed (code 7)"),
        (
            "method.begin_task=asks_wrongly",
            "",
            "in begin_task: the plugin asked with a null pointer where the name of a draw",
        ),
        (
            "method.begin_task=no_room",
            "",
            "in begin_task: the plugin asked for what it has no room for: CilBatch: its size is 0",
        ),
        (
            "method.begin_task=old_status",
            "",
            "in begin_task: the size of the CilStatus that came back is 0",
        ),
        (
            "method.plan=plans_what_is_required",
            "",
            "in plan: CilPlan requires 'repeats', which this cilbench (ABI 2.0)",
        ),
    ] {
        let plugin = faulty::with(folder.path(), fault);
        for isolate in [None, Some("--isolate")] {
            let out = folder.path().join(format!("{fault}{isolate:?}"));
            let more: Vec<&str> =
                [more].into_iter().filter(|m| !m.is_empty()).chain(isolate).collect();
            refused(run(&plugin, "nearest-mean-c", &out, &more), 1, &[expected]);
            assert_eq!(record(&out)["status"], "failed", "{fault}");
            assert_eq!(
                record(&out)["accuracy_matrix"].as_array().map(Vec::len),
                Some(0),
                "{fault}"
            );
        }
    }
}

#[test]
fn a_crash_in_a_process_of_its_own_is_an_error_and_the_run_goes_on_later() {
    let folder = tempfile::tempdir().expect("folder");
    let mark = folder.path().join("crash");
    let whole = folder.path().join("whole");
    for (fault, signal) in
        [("method.end_task=segfault", "signal: 11"), ("method.end_task=aborts", "signal: 6")]
    {
        let plugin = faulty::with(folder.path(), fault);
        let out = folder.path().join(fault);
        std::fs::write(&mark, "").expect("written");
        let start = || {
            let mut command = run(&plugin, "nearest-mean-c", &out, &["--isolate"]);
            command.env("CRASH", &mark);
            command
        };
        refused(
            start(),
            1,
            &["in end_task: the process ended", signal, plugin.to_str().expect("a path")],
        );
        assert_eq!(
            record(&out)["accuracy_matrix"].as_array().map(Vec::len),
            Some(1),
            "the first task was scored"
        );
        let mut check = cilbench(&["plugin", "check", plugin.to_str().expect("a path")]);
        check.env("CRASH", &mark);
        let checked = output(check);
        assert_eq!(checked.status.code(), Some(1));
        assert!(
            text(&checked.stdout).contains("BROKEN") && text(&checked.stdout).contains(signal),
            "{}",
            text(&checked.stdout)
        );
        // Without the child the whole process ends, by design.
        let mut alone = run(&plugin, "nearest-mean-c", &folder.path().join("alone"), &[]);
        alone.env("CRASH", &mark);
        assert_eq!(output(alone).status.code(), None);
        std::fs::remove_file(&mark).expect("there");
        let resumed = succeeded(start());
        assert!(resumed.contains("resumed from the checkpoint at the end of task 1"), "{resumed}");
        std::fs::remove_dir_all(folder.path().join("alone")).expect("there");
        if !whole.exists() {
            succeeded(run(&plugin, "nearest-mean-c", &whole, &[]));
        }
        assert_eq!(record(&whole)["accuracy_matrix"], record(&out)["accuracy_matrix"]);
    }
}

#[test]
fn a_sound_library_keeps_all_rules_in_a_child_even_if_it_prints() {
    let folder = tempfile::tempdir().expect("folder");
    // Structs of a later revision are longer; what is not required of them is skipped.
    let longer = "method.size=sizeof longer, longer.later=1, method.plan=plans_more";
    for plugin in [
        faulty::sound(folder.path()),
        faulty::with(folder.path(), "method.end_task=prints"),
        faulty::with(folder.path(), longer),
    ] {
        let shown = succeeded(cilbench(&["plugin", "check", plugin.to_str().expect("a path")]));
        assert!(shown.contains("rules kept, 0 broken") && shown.contains("ABI version"), "{shown}");
    }
}
