//! What is known of published networks beyond their tensors.

use super::facts::{Activation, Facts, Sizes};

/// Networks whose heads are not 64 wide, and the common ones whose heads are: width, blocks,
/// whether the MLP is gated, heads. (timm 1.0.31, `vision_transformer.py` and `deit.py`.)
const HEADS: &[(usize, usize, bool, usize)] = &[
    (192, 12, false, 3),
    (384, 12, false, 6),
    (768, 12, false, 12),
    (1024, 24, false, 16),
    // So400m, Huge, Giant, Giant-opt and Gigantic have 16 heads at any width.
    (1152, 27, false, 16),
    (1280, 32, false, 16),
    (1408, 40, false, 16),
    (1536, 40, false, 16),
    (1664, 48, false, 16),
    // DINOv2's giant.
    (1536, 40, true, 24),
];

/// Parts of timm's names of architectures, and what they say; the first that fits counts.
const NAMES: &[(&str, f64, Activation)] = &[
    ("_clip_quickgelu", 1e-5, Activation::QuickGelu),
    ("_clip_", 1e-5, Activation::Gelu),
    ("patch32_siglip", 1e-6, Activation::GeluTanh),
    ("large_patch16_siglip_512", 1e-6, Activation::GeluTanh),
    ("large_patch16_siglip_gap_512", 1e-6, Activation::GeluTanh),
    ("so400m_patch16_siglip", 1e-6, Activation::GeluTanh),
    ("giantopt_patch16_siglip", 1e-6, Activation::GeluTanh),
    ("vit_", 1e-6, Activation::Gelu),
    ("deit", 1e-6, Activation::Gelu),
    ("flexivit", 1e-6, Activation::Gelu),
];

/// The architecture in the name of a hub repository, `timm/<architecture>.<tag>@<commit>`.
pub(super) fn of_repository(source: &str) -> String {
    let name = source.rsplit_once('/').map_or(source, |(_, name)| name);
    name.split('@').next().unwrap_or(name).to_owned()
}

/// What the name of an architecture says.
pub(super) fn by_name(name: Option<&str>) -> Facts {
    let Some(name) = name else { return Facts::default() };
    // What this program exports is called "vit".
    let row =
        NAMES.iter().find(|(part, ..)| name.contains(part) || (name == "vit" && *part == "vit_"));
    let heads = name.contains("base_patch16_gap_224").then_some(16);
    match row {
        Some((_, eps, activation)) => {
            Facts { heads, eps: Some(*eps), activation: Some(*activation), ..Facts::default() }
        }
        None => Facts::default(),
    }
}

/// What the sizes of a network say.
pub(super) fn by_sizes(sizes: Sizes) -> Facts {
    let is = |row: &&(usize, usize, bool, usize)| {
        (row.0, row.1, row.2) == (sizes.dim, sizes.depth, sizes.gated)
    };
    Facts { heads: HEADS.iter().find(is).map(|row| row.3), ..Facts::default() }
}

/// Why a network of this name is not supported though its tensors look like a plain ViT's.
pub(super) fn unsupported(name: &str) -> Option<String> {
    let what = match name {
        n if n.contains("_rpn_") => "norms after each branch (res-post-norm)",
        n if n.contains("_rope_") || n.contains("dinov3") => "rotary positions",
        _ => return None,
    };
    Some(format!("it is {name}, which has {what}; that is not supported"))
}
