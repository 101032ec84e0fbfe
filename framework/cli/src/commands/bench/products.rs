//! `cilbench bench products`: times each kind of matrix product of a step and of a task's end,
//! beside a large one, on one thread.

use cilbench::nn::Product;
use cilbench::results::Machine;
use cilbench::{Error, Result};

use crate::args::{GlobalArgs, Size};
use crate::commands::Execute;
use crate::output::table;

#[derive(clap::Args)]
pub(crate) struct BenchProducts {
    /// The network whose products they are
    #[arg(long, default_value = "tiny")]
    size: Size,
    /// The side of the images, in pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    image_size: usize,
    /// Classes seen so far
    #[arg(long, default_value_t = 100, value_name = "N")]
    classes: usize,
    /// The rank of LoRA
    #[arg(long, default_value_t = 10, value_name = "N")]
    rank: usize,
}

impl Execute for BenchProducts {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        products(self)
    }
}

/// Rows of one part of an alignment step, and columns of a factor that are taken at a time.
const PART: usize = 160;
const COLUMNS: usize = 64;

fn products(args: &BenchProducts) -> Result<()> {
    for (flag, value, least, most) in [
        ("--image-size", args.image_size, 16, 2048),
        ("--classes", args.classes, 1, 100_000),
        ("--rank", args.rank, 1, 192),
    ] {
        if !(least..=most).contains(&value) {
            return Err(Error::usage(format!("{flag} {value}: from {least} to {most}")));
        }
    }
    let patches = (args.image_size / 16).pow(2);
    let (dim, heads) = args.size.width_and_heads();
    let (tokens, head, classes) = (patches + 1, dim / heads, args.classes.next_multiple_of(16));
    let qkv = 3 * dim;
    let by_rows = |width: usize| [width, 1];
    let by_columns = |width: usize| [1, width];
    let strided = |left, right, out| Product::Strided { left, right, out };
    let kinds = [
        ("x·W, forward (qkv)", (tokens, qkv, dim), Product::LaidOut),
        ("x·W, forward (fc1)", (tokens, 4 * dim, dim), Product::LaidOut),
        ("x·W, forward (fc2)", (tokens, dim, 4 * dim), Product::LaidOut),
        ("g·W, backward (fc1)", (tokens, dim, 4 * dim), Product::Frozen),
        ("g·W, backward (fc2)", (tokens, 4 * dim, dim), Product::Frozen),
        (
            "a head's q·kᵀ and g·vᵀ",
            (tokens, tokens, head),
            strided(by_rows(qkv), by_columns(qkv), tokens),
        ),
        (
            "a head's p·v and ds·k",
            (tokens, head, tokens),
            strided(by_rows(tokens), by_rows(qkv), dim),
        ),
        (
            "a head's pᵀ·g and dsᵀ·q",
            (tokens, head, tokens),
            strided(by_columns(tokens), by_rows(dim), qkv),
        ),
        (
            "LoRA, x·Aᵀ",
            (tokens, 2 * args.rank, dim),
            strided(by_rows(dim), by_columns(dim), 2 * args.rank),
        ),
        (
            "LoRA, low·Bᵀ",
            (tokens, dim, args.rank),
            strided(by_rows(2 * args.rank), by_columns(args.rank), qkv),
        ),
        (
            "LoRA, gᵀ·low (dB)",
            (dim, args.rank, tokens),
            strided(by_columns(qkv), by_rows(2 * args.rank), args.rank),
        ),
        (
            "LoRA, lowᵀ·x (dA)",
            (args.rank, dim, tokens),
            strided(by_columns(2 * args.rank), by_rows(dim), dim),
        ),
        ("alignment, samples", (PART, COLUMNS, dim), strided(by_rows(dim), by_rows(COLUMNS), dim)),
        (
            "alignment, logits",
            (PART, classes, dim),
            strided(by_rows(dim), by_rows(classes), classes),
        ),
        (
            "alignment, gradient",
            (dim, classes, PART),
            strided(by_columns(dim), by_rows(classes), classes),
        ),
        ("covariance of 500 rows", (dim, dim, 500), strided(by_columns(dim), by_rows(dim), dim)),
    ];
    let large = || strided(by_rows(768), by_rows(3072), 3072).speed((1576, 3072, 768));
    // Measured at the beginning and at the end: the machine's speed may change meanwhile.
    let mut reference = large();
    let speeds = kinds.map(|(what, shape, kind)| (what, shape, kind.speed(shape)));
    reference = reference.max(large());

    let mut out = table(&["product", "rows × columns × depth", "GFLOP/s", "of a large one's"]);
    for (what, (m, n, k), speed) in speeds {
        let share = format!("{:.0} %", 100.0 * speed / reference);
        out.add_row([
            what.to_owned(),
            format!("{m} × {n} × {k}"),
            format!("{:.0}", speed / 1e9),
            share,
        ]);
    }
    println!(
        "one image, one head or one part at a time, on one thread; f32, cpu; {}",
        Machine::here().processor
    );
    println!("{out}");
    println!(
        "A large product, 1576 × 3072 × 768 by the gemm crate: {:.0} GFLOP/s.",
        reference / 1e9
    );
    Ok(())
}
