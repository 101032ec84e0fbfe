//! The C header of the ABI is the Rust one: every struct and field, by a C program that prints
//! where they lie.
#![cfg(unix)]

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use cilbench::plugin::abi;

fn header() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/cilbench.h")
}

#[test]
fn every_field_lies_where_c_has_it() {
    let folder = tempfile::tempdir().expect("folder");
    let (mut code, mut expected) = (
        String::from("#include <stdio.h>\n#include \"cilbench.h\"\nint main(void) {\n"),
        String::new(),
    );
    for s in abi::layouts() {
        writeln!(code, "printf(\"{0} %zu\\n\", sizeof({0}));", s.name).expect("a text");
        writeln!(expected, "{} {}", s.name, s.size).expect("a text");
        for (field, offset, size) in s.fields {
            writeln!(
                code,
                "printf(\"{0}.{1} %zu %zu\\n\", offsetof({0}, {1}), sizeof((({0} *)0)->{1}));",
                s.name, field
            )
            .expect("a text");
            writeln!(expected, "{}.{field} {offset} {size}", s.name).expect("a text");
        }
    }
    code.push_str("return 0; }\n");
    let (source, program) = (folder.path().join("probe.c"), folder.path().join("probe"));
    std::fs::write(&source, code).expect("written");
    let include = header().parent().expect("a folder").to_owned();
    let built = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Werror", "-I"])
        .arg(include)
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .output();
    let built = built.expect("a C compiler, cc");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let found = Command::new(&program).output().expect("it runs").stdout;
    assert_eq!(String::from_utf8_lossy(&found), expected);
}

/// The fields of each struct of the header, in their order, so that none is there that Rust does
/// not have.
#[test]
fn the_header_has_no_field_and_no_number_of_its_own() {
    let text = std::fs::read_to_string(header()).expect("the header");
    // A declaration may be broken into lines.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let structs: Vec<(&str, &str)> = text
        .split("typedef struct {\n")
        .skip(1)
        .map(|s| {
            let (body, rest) = s.split_once("\n} ").expect("an end");
            (rest.split_once(';').expect("a name").0, body)
        })
        .collect();
    let layouts = abi::layouts();
    assert_eq!(
        structs.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        layouts.iter().map(|l| l.name).collect::<Vec<_>>()
    );
    for ((name, body), layout) in structs.iter().zip(&layouts) {
        assert_eq!(body.lines().filter(|l| l.contains(';')).count(), layout.fields.len(), "{name}");
    }
    let numbers = [
        ("CIL_ABI_VERSION 2", abi::VERSION == 2),
        ("CIL_ABI_REVISION 0", abi::REVISION == 0),
        (
            "CIL_OK = 0, CIL_FAILED = 1, CIL_USAGE = 2, CIL_UNSUPPORTED = 3, CIL_DIVERGED = 4, CIL_INTERRUPTED = 5",
            {
                [
                    abi::OK,
                    abi::FAILED,
                    abi::USAGE,
                    abi::UNSUPPORTED,
                    abi::DIVERGED,
                    abi::INTERRUPTED,
                ] == [0, 1, 2, 3, 4, 5]
            },
        ),
        (
            "CIL_NONE = 0, CIL_F32 = 1, CIL_F64 = 2, CIL_BF16 = 3, CIL_F16 = 4, CIL_I64 = 5, CIL_U8 = 6, CIL_U32 = 7",
            {
                [abi::NONE, abi::F32, abi::F64, abi::BF16, abi::F16, abi::I64, abi::U8, abi::U32]
                    == [0, 1, 2, 3, 4, 5, 6, 7]
            },
        ),
        ("CIL_VIEW_TRAIN = 1, CIL_VIEW_TEST = 2", [abi::VIEW_TRAIN, abi::VIEW_TEST] == [1, 2]),
        ("CIL_ACCESS_STREAM = 1, CIL_ACCESS_MEMORY = 2, CIL_ACCESS_ALL = 3", {
            [abi::ACCESS_STREAM, abi::ACCESS_MEMORY, abi::ACCESS_ALL] == [1, 2, 3]
        }),
        ("CIL_LAW_UNIFORM = 1, CIL_LAW_NORMAL = 2, CIL_LAW_PERMUTATION = 3", {
            [abi::LAW_UNIFORM, abi::LAW_NORMAL, abi::LAW_PERMUTATION] == [1, 2, 3]
        }),
        (
            "CIL_KIND_TRAINED = 1, CIL_KIND_STATISTIC = 2, CIL_KIND_OPTIMISER = 3, CIL_KIND_BUFFER = 4",
            {
                [abi::KIND_TRAINED, abi::KIND_STATISTIC, abi::KIND_OPTIMISER, abi::KIND_BUFFER]
                    == [1, 2, 3, 4]
            },
        ),
    ];
    for (line, same) in numbers {
        assert!(same && flat.contains(line), "{line}");
    }
}
