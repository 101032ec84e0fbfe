//! What network the tensors make: sizes and variants are read off their names and shapes.

use std::collections::{BTreeMap, BTreeSet};

use crate::backbone::WeightsFile;
use crate::backbone::names::Mapped;
use crate::{Error, Result};

/// What becomes of the tokens after the last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    /// The CLS token is the feature.
    Cls,
    /// The mean of the CLS and the distillation token (DeiT, Touvron et al. 2021).
    ClsAndDistilled,
    /// The mean over the patches (MAE fine-tuned; networks without a CLS token).
    Patches,
    /// Attention of a learned query over the patches (SigLIP, Zhai et al. 2023).
    Attention,
}

/// Sizes and variants of a ViT.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub dim: usize,
    pub patch: usize,
    /// Patches per side, of the images that the positions were made for.
    pub grid: usize,
    pub depth: usize,
    /// Inputs of the MLP's second layer.
    pub hidden: usize,
    /// Whether the MLP is silu(x·Gᵀ) ∘ (x·Uᵀ) between its layers (SwiGLU, DINOv2's giant).
    pub gated: bool,
    pub layer_scale: bool,
    pub patch_bias: bool,
    pub qkv_bias: bool,
    pub norm_pre: bool,
    pub norm: bool,
    pub fc_norm: bool,
    pub cls: bool,
    pub distilled: bool,
    pub registers: usize,
    /// Tokens before the patches that have a position of their own.
    pub placed: usize,
    pub pool: Pool,
}

impl Layout {
    /// Reads the layout, and checks that the tensors are exactly those that it has.
    ///
    /// # Errors
    /// Lists missing, unknown and mis-shaped tensors.
    pub fn read(file: &WeightsFile, mapped: &Mapped) -> Result<Self> {
        let layout = Self::guess(file, mapped)?;
        layout.check(file, mapped)?;
        Ok(layout)
    }

    fn guess(file: &WeightsFile, mapped: &Mapped) -> Result<Self> {
        let has = |name: &str| mapped.shape(name).is_some();
        let (dim, patch) = patches(file, mapped)?;
        let blocks: BTreeSet<usize> = mapped.tensors.keys().filter_map(|n| block_of(n)).collect();
        let depth = blocks.last().map_or(0, |last| last + 1);
        let any = |end: &str| (0..depth).find_map(|i| mapped.shape(&format!("blocks.{i}.{end}")));
        let rows = |shape: Option<&[usize]>| shape.and_then(|s| s.first().copied()).unwrap_or(0);
        let fc1 = rows(any("mlp.fc1.weight"));
        let hidden = any("mlp.fc2.weight").and_then(|s| s.get(1).copied()).unwrap_or(fc1);
        let registers = mapped.shape("reg_token").map_or(0, |s| s.get(1).copied().unwrap_or(0));
        let (cls, distilled) = (has("cls_token"), has("dist_token"));
        let (fc_norm, attention) = (has("fc_norm.weight"), has("attn_pool.latent"));
        let pool = match (attention, fc_norm || !cls, distilled) {
            (true, ..) => Pool::Attention,
            (false, true, _) => Pool::Patches,
            (false, false, true) => Pool::ClsAndDistilled,
            (false, false, false) => Pool::Cls,
        };
        let mut layout = Self {
            dim,
            patch,
            grid: 0,
            depth,
            hidden,
            gated: fc1 > 0 && fc1 == 2 * hidden,
            layer_scale: any("ls1.gamma").is_some() || any("ls2.gamma").is_some(),
            patch_bias: has("patch_embed.proj.bias"),
            qkv_bias: any("attn.qkv.bias").is_some(),
            norm_pre: has("norm_pre.weight"),
            norm: has("norm.weight") || !fc_norm,
            fc_norm,
            cls,
            distilled,
            registers,
            placed: 0,
            pool,
        };
        (layout.grid, layout.placed) = layout.positions(file, mapped)?;
        Ok(layout)
    }

    /// Patches per side, and how many of the tokens before them have positions too.
    fn positions(&self, file: &WeightsFile, mapped: &Mapped) -> Result<(usize, usize)> {
        let Some(shape) = mapped.shape("pos_embed") else {
            let what = "missing: pos_embed; networks with rotary positions (DINOv3, EVA-02) and \
                        without positions are not supported";
            return Err(file.error(what));
        };
        let tokens = shape.get(1).copied().unwrap_or_default();
        let front = usize::from(self.cls) + usize::from(self.distilled);
        for placed in [front, front + self.registers, 0] {
            let patches = tokens.saturating_sub(placed);
            let grid = (patches as f64).sqrt().round() as usize;
            if grid > 0 && grid * grid == patches && patches + placed == tokens {
                return Ok((grid, placed));
            }
        }
        let square = |n: usize| n > 0 && (n as f64).sqrt().fract() == 0.0;
        if !self.cls && square(tokens.saturating_sub(1)) {
            return Err(file.error(format!("missing: cls_token [1, 1, {}]", self.dim)));
        }
        Err(file.error(format!(
            "wrong shape: pos_embed {shape:?} does not make a square grid of patches with {front} \
             tokens (CLS, distillation) and {} registers before it",
            self.registers
        )))
    }

    /// Every tensor of this network, with its shape.
    fn expected(&self) -> BTreeMap<String, Vec<usize>> {
        let (dim, patch) = (self.dim, self.patch);
        let mut list = Expected(BTreeMap::new());
        list.add("patch_embed.proj.weight", &[dim, 3, patch, patch]);
        list.add("pos_embed", &[1, self.placed + self.grid * self.grid, dim]);
        list.add_if(self.cls || self.pool == Pool::Cls, "cls_token", &[1, 1, dim]);
        list.add_if(self.distilled, "dist_token", &[1, 1, dim]);
        list.add_if(self.registers > 0, "reg_token", &[1, self.registers, dim]);
        list.add_if(self.patch_bias, "patch_embed.proj.bias", &[dim]);
        for (there, name) in
            [(self.norm_pre, "norm_pre"), (self.norm, "norm"), (self.fc_norm, "fc_norm")]
        {
            if there {
                list.norm(name, dim);
            }
        }
        for i in 0..self.depth {
            let name = |part: &str| format!("blocks.{i}.{part}");
            list.norm(&name("norm1"), dim);
            list.norm(&name("norm2"), dim);
            list.add(&name("attn.qkv.weight"), &[3 * dim, dim]);
            list.add_if(self.qkv_bias, &name("attn.qkv.bias"), &[3 * dim]);
            list.linear(&name("attn.proj"), dim, dim);
            list.linear(
                &name("mlp.fc1"),
                if self.gated { 2 * self.hidden } else { self.hidden },
                dim,
            );
            list.linear(&name("mlp.fc2"), dim, self.hidden);
            for gamma in ["ls1.gamma", "ls2.gamma"] {
                list.add_if(self.layer_scale, &name(gamma), &[dim]);
            }
        }
        list.0
    }

    fn check(&self, file: &WeightsFile, mapped: &Mapped) -> Result<()> {
        let mut expected = self.expected();
        if self.pool == Pool::Attention {
            super::pool::expected(&mut expected, self.dim, mapped);
        }
        let mut missing: Vec<String> =
            mapped.missing.iter().map(|n| format!("missing: {n}")).collect();
        let mut problems = Vec::new();
        let mut holes: BTreeMap<usize, usize> = BTreeMap::new();
        for (name, shape) in &expected {
            match mapped.shape(name) {
                Some(found) if found == shape => {}
                Some(found) => {
                    problems.push(format!("wrong shape: {name} is {found:?}, expected {shape:?}"))
                }
                None if whole_block_missing(mapped, name) => {
                    *holes.entry(block_of(name).unwrap_or(0)).or_default() += 1;
                }
                // Parts of a joined tensor are named by themselves.
                None if mapped.missing.iter().any(|m| same_layer(m, name)) => {}
                None => missing.push(format!("missing: {name} {shape:?}")),
            }
        }
        let holes =
            holes.iter().map(|(b, count)| format!("missing: blocks.{b}.* ({count} tensors)"));
        missing.extend(holes);
        missing.append(&mut problems);
        let known = mapped.tensors.iter().filter(|(n, _)| !expected.contains_key(*n));
        let unknown =
            known.map(|(n, t)| (n.clone(), t.dims().to_vec())).chain(mapped.unknown.clone());
        missing.extend(grouped(unknown.collect()));
        if missing.is_empty() {
            return Ok(());
        }
        let lines = missing.join("\n  ");
        Err(file.error(format!("these tensors do not fit a ViT (by timm's names):\n  {lines}")))
    }

    /// Tokens before the patches.
    pub fn front(&self) -> usize {
        usize::from(self.cls) + usize::from(self.distilled) + self.registers
    }

    /// Whether the network is the plain one: a CLS token, and nothing else beside the patches.
    pub fn is_plain(&self) -> bool {
        self.pool == Pool::Cls
            && self.registers == 0
            && self.placed == 1
            && !self.norm_pre
            && !self.gated
    }
}

/// The width and the side of a patch.
fn patches(file: &WeightsFile, mapped: &Mapped) -> Result<(usize, usize)> {
    let name = "patch_embed.proj.weight";
    let shape = mapped.shape(name).ok_or_else(|| file.error(format!("missing: {name}")))?;
    match shape {
        [dim, 3, patch, width] if patch == width && *dim > 0 && *patch > 0 => Ok((*dim, *patch)),
        _ => Err(file
            .error(format!("wrong shape: {name} is {shape:?}, expected [dim, 3, patch, patch]"))),
    }
}

fn block_of(name: &str) -> Option<usize> {
    // A number beyond any network's depth is no block's.
    name.strip_prefix("blocks.")?.split('.').next()?.parse().ok().filter(|n| *n < 1000)
}

fn whole_block_missing(mapped: &Mapped, name: &str) -> bool {
    let Some(block) = block_of(name) else { return false };
    let begin = format!("blocks.{block}.");
    let after = mapped.tensors.range(begin.clone()..).next();
    !after.is_some_and(|(n, _)| n.starts_with(&begin))
        && !mapped.missing.iter().any(|m| m.starts_with(&begin))
}

/// Whether `part` is a part of the joined tensor `whole`, `blocks.0.attn.k.bias` of `….qkv.bias`.
fn same_layer(part: &str, whole: &str) -> bool {
    let module = |name: &str| {
        let mut parts: Vec<&str> = name.split('.').collect();
        let end = parts.pop().unwrap_or_default().to_owned();
        parts.pop();
        (parts.join("."), end)
    };
    module(part) == module(whole) && (whole.contains(".attn.qkv.") || whole.contains(".mlp.fc1."))
}

/// One line per tensor, or per first part of the name where there are many.
fn grouped(unknown: Vec<(String, Vec<usize>)>) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<(String, Vec<usize>)>> = BTreeMap::new();
    for (name, shape) in unknown {
        groups
            .entry(name.split('.').next().unwrap_or_default().to_owned())
            .or_default()
            .push((name, shape));
    }
    let lines = groups.into_iter().flat_map(|(first, names)| match &names[..] {
        [(name, _), .., _] if names.len() > 4 => {
            vec![format!("unknown: {first}.* ({} tensors, such as {name})", names.len())]
        }
        _ => names.iter().map(|(name, shape)| format!("unknown: {name} {shape:?}")).collect(),
    });
    lines.collect()
}

/// A list of tensors with their shapes.
struct Expected(BTreeMap<String, Vec<usize>>);

impl Expected {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(name.to_owned(), shape.to_vec());
    }

    fn add_if(&mut self, there: bool, name: &str, shape: &[usize]) {
        if there {
            self.add(name, shape);
        }
    }

    fn norm(&mut self, name: &str, dim: usize) {
        self.add(&format!("{name}.weight"), &[dim]);
        self.add(&format!("{name}.bias"), &[dim]);
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) {
        self.add(&format!("{name}.weight"), &[rows, columns]);
        self.add(&format!("{name}.bias"), &[rows]);
    }
}

/// The image size to use, from what was asked for and what the file was made for.
///
/// # Errors
/// [`Error::Usage`] for a size that is no multiple of the patch, or that makes more tokens than fit
/// into memory.
pub(super) fn image_size(layout: &Layout, asked: Option<usize>) -> Result<usize> {
    /// Attention over more tokens takes more memory than machines have.
    const MAX_TOKENS: usize = 1 << 16;
    let patch = layout.patch;
    let size = asked.unwrap_or(layout.grid.saturating_mul(patch));
    if size == 0 || !size.is_multiple_of(patch) {
        let near = [(size / patch).max(1) * patch, (size / patch + 1).saturating_mul(patch)];
        let or = if near[0] == near[1] { String::new() } else { format!(" or {}", near[1]) };
        return Err(Error::usage(format!(
            "image size {size} is no multiple of the backbone's patch size, {patch}: use {}{or}",
            near[0]
        )));
    }
    let grid = size / patch;
    if grid.saturating_mul(grid) > MAX_TOKENS {
        let most = (MAX_TOKENS as f64).sqrt() as usize * patch;
        return Err(Error::usage(format!(
            "image size {size} makes {grid}×{grid} patches of {patch} pixels, and attention over more \
             than {MAX_TOKENS} does not fit into memory: use {most} at most"
        )));
    }
    Ok(size)
}
