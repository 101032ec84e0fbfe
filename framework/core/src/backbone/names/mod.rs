//! From the names in a file to timm's: which of the file's tensors are the network, and what each
//! of them is. What stands in [`table`] is data; nothing is dropped without a note.

mod table;
#[cfg(test)]
mod test;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor};

use super::WeightsFile;
use super::weights::Stored;
use crate::{Error, Result};
use table::{CONVENTIONS, COPIES, Convention, FOREIGN, JOINED, LEFT_OUT, WRAPPERS};

/// The tensors of one network under timm's names.
pub(super) struct Mapped {
    /// The tensors, of a floating-point type, all values finite in f32.
    pub tensors: BTreeMap<String, Tensor>,
    /// Names that mean nothing to us, with their shapes; they make the file unfit.
    pub unknown: Vec<(String, Vec<usize>)>,
    /// Parts that a joined tensor lacks.
    pub missing: Vec<String>,
    /// What was renamed and what was left out, one line each.
    pub notes: Vec<String>,
}

impl Mapped {
    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Tensor::dims)
    }
}

/// A place where a network begins.
struct Candidate {
    prefix: String,
    convention: &'static Convention,
}

/// Finds the network of a file, the one below `key` if there is a key.
///
/// # Errors
/// If there is none, or more than one to choose from; if a tensor that is used has a type or values
/// that weights cannot have.
pub(super) fn map(file: &WeightsFile, key: Option<&str>) -> Result<Mapped> {
    // The name without wrappers and chunks, and the tensor's own.
    let mut plain: BTreeMap<String, &str> = BTreeMap::new();
    for name in file.names() {
        if let Some(other) = plain.insert(plain_name(name), name) {
            return Err(
                file.error(format!("'{other}' and '{name}' are the same tensor of the network"))
            );
        }
    }
    let found = choose(file, &plain, key)?;
    let mut notes = file.notes().to_vec();
    if found.convention.name != "timm" || !found.prefix.is_empty() {
        let below = match found.prefix.trim_end_matches('.') {
            "" => String::new(),
            prefix => format!(", below '{prefix}'"),
        };
        notes.push(format!("names of {}{below}", found.convention.name));
    }
    let mut collected = Collected::default();
    // With a key, the networks that it did not choose may lie below the one that it did.
    let other = |c: &Candidate| key.is_some() && c.prefix != found.prefix;
    let others: Vec<Candidate> = candidates(&plain).into_iter().filter(other).collect();
    let of_another = |name: &str| {
        others.iter().any(|c| c.prefix.starts_with(&found.prefix) && name.starts_with(&c.prefix))
    };
    for (name, original) in &plain {
        let rest = name.strip_prefix(&found.prefix).filter(|_| !of_another(name));
        let Some(rest) = rest else {
            collected.outside.push((*original).to_owned());
            continue;
        };
        let stored = &file.stored()[*original];
        collected
            .take(renamed(found.convention, rest), original, stored)
            .map_err(|e| file.error(e))?;
    }
    let mut mapped = collected.finish(file, notes)?;
    mapped.missing = join(&mut mapped.tensors)?;
    reshape(&mut mapped.tensors)?;
    values::check(file, &mapped.tensors)?;
    Ok(mapped)
}

/// The name without the parts that wrappers add, and without the chunks of DINOv2's blocks:
/// `blocks.1.7.` is block 7.
fn plain_name(name: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for part in name.split('.').filter(|part| !WRAPPERS.contains(part)) {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if let [.., "blocks", last] = out[..]
            && number(last)
            && number(part)
        {
            out.pop();
        }
        out.push(part);
    }
    out.join(".")
}

fn candidates(plain: &BTreeMap<String, &str>) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let prefix = |name: &str, end: &str| {
        let begin = name.strip_suffix(end)?;
        (begin.is_empty() || begin.ends_with('.')).then(|| begin.to_owned())
    };
    let has = |prefix: &str, name: &str| plain.contains_key(&format!("{prefix}{name}"));
    for convention in CONVENTIONS {
        for prefix in plain.keys().filter_map(|name| prefix(name, convention.patch)) {
            if convention.blocks.iter().any(|block| has(&prefix, block)) {
                found.push(Candidate { prefix, convention });
            }
        }
    }
    if !found.is_empty() {
        return found;
    }
    // A hole is to be reported as one: half of what tells a network is enough.
    for convention in CONVENTIONS {
        let ends = convention
            .blocks
            .iter()
            .chain((convention.patch != "conv1.weight").then_some(&convention.patch));
        for end in ends {
            for prefix in plain.keys().filter_map(|name| prefix(name, end)) {
                if !found.iter().any(|c| c.prefix == prefix) {
                    found.push(Candidate { prefix, convention });
                }
            }
        }
    }
    found
}

fn choose(
    file: &WeightsFile,
    plain: &BTreeMap<String, &str>,
    key: Option<&str>,
) -> Result<Candidate> {
    let mut found = candidates(plain);
    found.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    let all: BTreeSet<String> =
        found.iter().map(|c| c.prefix.trim_end_matches('.').to_owned()).collect();
    if let Some(key) = key {
        let below = format!("{}.", key.trim_end_matches('.'));
        let root = below == ".";
        found.retain(|c| if root { c.prefix.is_empty() } else { c.prefix.starts_with(&below) });
        if found.is_empty() && !all.is_empty() {
            let known = all.iter().map(|p| if p.is_empty() { "." } else { p.as_str() });
            let what = format!("key of a network in {}", file.path().display());
            return Err(Error::unknown(&what, key, known));
        }
    }
    if found.len() > 1 {
        let prefixes: Vec<String> = found.iter().map(|c| c.prefix.clone()).collect();
        found.retain(|c| !is_copy(&c.prefix, &prefixes));
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(file.error(not_found(plain))),
        n => {
            // The network without a prefix is chosen by a dot.
            let key = |c: &Candidate| match c.prefix.trim_end_matches('.') {
                "" => ".".to_owned(),
                prefix => prefix.to_owned(),
            };
            let keys: Vec<String> = found.iter().map(key).collect();
            let (all, last) = (keys.join(" and "), &keys[n - 1]);
            let choose = format!("choose one, as in --weights-key {last}");
            Err(file.error(format!("it holds {n} networks, below {all}: {choose}")))
        }
    }
}

/// Whether this is the copy of one of the other networks.
fn is_copy(prefix: &str, all: &[String]) -> bool {
    COPIES.iter().any(|(copy, original)| {
        let parts: Vec<&str> = prefix.split('.').collect();
        let Some(at) = parts.iter().position(|p| p == copy) else { return false };
        let mut other = parts.clone();
        if original.is_empty() {
            other.remove(at);
            // `ema.module.` is a copy of the network without a prefix too.
            all.iter().any(|p| *p == other.join(".") || (at == 0 && p.is_empty()))
        } else {
            other[at] = original;
            all.contains(&other.join("."))
        }
    })
}

/// What the file holds instead of a network that we know.
fn not_found(plain: &BTreeMap<String, &str>) -> String {
    if plain.is_empty() {
        return "there is no tensor in it".into();
    }
    let foreign = FOREIGN.iter().find(|(part, _)| plain.keys().any(|name| holds(name, part)));
    let names: Vec<&str> = plain.values().take(3).copied().collect();
    let names = format!("{} tensors, such as {}", plain.len(), names.join(", "));
    match foreign {
        Some((_, what)) => format!("these are the names of {what} ({names})"),
        None => format!(
            "there is no vision transformer in it by any names that are known ({names}). Known are \
             those of timm, transformers, torchvision, OpenAI CLIP, open_clip, MMPreTrain, DINO, MAE \
             and MoCo v3"
        ),
    }
}

/// Whether these parts stand in a name, one after the other.
fn holds(name: &str, parts: &str) -> bool {
    format!(".{name}.").contains(&format!(".{parts}."))
}

/// The name that timm has for this one.
fn renamed(convention: &Convention, name: &str) -> String {
    let fits = |rule: &&(&str, &str)| apply(rule.0, rule.1, name).is_some();
    match convention.rules.iter().find(fits) {
        Some((from, to)) => apply(from, to, name).unwrap_or_default(),
        None => name.to_owned(),
    }
}

fn apply(from: &str, to: &str, name: &str) -> Option<String> {
    let (rest, target) = match from.split_once("{}") {
        None => (name.strip_prefix(from)?, to.to_owned()),
        Some((begin, end)) => {
            let rest = name.strip_prefix(begin)?;
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = rest.split_at(digits);
            (rest.strip_prefix(end).filter(|_| digits > 0)?, to.replace("{}", number))
        }
    };
    (rest.is_empty() || rest.starts_with('.')).then(|| format!("{target}{rest}"))
}

/// What was met on the way through a file.
#[derive(Default)]
struct Collected {
    used: BTreeMap<String, (String, Stored)>,
    /// By reason and first part: how many.
    left_out: BTreeMap<(&'static str, String), usize>,
    outside: Vec<String>,
}

impl Collected {
    fn take(&mut self, name: String, original: &str, stored: &Stored) -> Result<(), String> {
        let first = name.split('.').next().unwrap_or_default();
        if let Some((part, why)) = LEFT_OUT.iter().find(|(part, _)| *part == first) {
            *self.left_out.entry((why, (*part).to_owned())).or_default() += 1;
            return Ok(());
        }
        match self.used.insert(name.clone(), (original.to_owned(), stored.clone())) {
            None => Ok(()),
            Some((other, _)) => {
                Err(format!("'{other}' and '{original}' are both {name} of the network"))
            }
        }
    }

    /// Tells tensors of the network, buffers, and the unknown apart.
    fn finish(self, file: &WeightsFile, mut notes: Vec<String>) -> Result<Mapped> {
        for ((why, first), count) in &self.left_out {
            notes.push(format!("left out: {first} ({why}, {})", tensors(*count)));
        }
        let mut by_first: BTreeMap<&str, usize> = BTreeMap::new();
        for name in &self.outside {
            *by_first.entry(name.split('.').next().unwrap_or(name)).or_default() += 1;
        }
        for (first, count) in by_first {
            notes.push(format!("left out: {first} (beside the network, {})", tensors(count)));
        }
        let mut mapped =
            Mapped { tensors: BTreeMap::new(), unknown: Vec::new(), missing: Vec::new(), notes };
        let mut buffers = 0;
        for (name, (original, stored)) in self.used {
            if let Some((_, what)) = FOREIGN.iter().find(|(part, _)| holds(&name, part)) {
                return Err(file.error(format!("'{original}' is of {what}")));
            }
            match (is_known(&name), stored) {
                (true, Stored::Tensor(tensor)) => {
                    mapped.tensors.insert(name, values::floating(file, &original, tensor)?);
                }
                (true, Stored::Unusable { why, .. }) => {
                    return Err(file.error(format!("tensor '{original}' {why}")));
                }
                (false, Stored::Tensor(tensor)) if tensor.dtype().is_float() => {
                    mapped.unknown.push((original, tensor.dims().to_vec()));
                }
                (false, _) => buffers += 1,
            }
        }
        if buffers > 0 {
            mapped.notes.push(format!("left out: counters and indices ({})", tensors(buffers)));
        }
        Ok(mapped)
    }
}

fn tensors(count: usize) -> String {
    if count == 1 { "1 tensor".into() } else { format!("{count} tensors") }
}

/// Whether a ViT may have a tensor of this name, before joining.
fn is_known(name: &str) -> bool {
    const WHOLE: &[&str] =
        &["cls_token", "dist_token", "reg_token", "pos_embed", "attn_pool.latent"];
    const LAYERS: &[&str] = &[
        "patch_embed.proj",
        "norm_pre",
        "norm",
        "fc_norm",
        "attn_pool.q",
        "attn_pool.kv",
        "attn_pool.qkv",
        "attn_pool.proj",
        "attn_pool.norm",
        "attn_pool.mlp.fc1",
        "attn_pool.mlp.fc2",
    ];
    const BLOCK: &[&str] = &[
        "norm1",
        "norm2",
        "attn.qkv",
        "attn.q",
        "attn.k",
        "attn.v",
        "attn.proj",
        "mlp.fc1",
        "mlp.fc1_g",
        "mlp.fc1_x",
        "mlp.fc2",
    ];
    if WHOLE.contains(&name) {
        return true;
    }
    let layer = |name: &str, known: &[&str]| {
        name.rsplit_once('.')
            .is_some_and(|(l, p)| known.contains(&l) && (p == "weight" || p == "bias"))
    };
    match name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
        Some((number, rest)) => {
            let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            is_number && (layer(rest, BLOCK) || rest == "ls1.gamma" || rest == "ls2.gamma")
        }
        None => layer(name, LAYERS),
    }
}

/// Joins q, k and v, and the two halves of a gated layer; gives the names of parts that are
/// missing. Where only the keys have no bias, in no block, it is zero: it would not change the
/// attention.
fn join(tensors: &mut BTreeMap<String, Tensor>) -> Result<Vec<String>> {
    let keys_biased = tensors.keys().any(|n| n.ends_with(".attn.k.bias"));
    let mut missing = Vec::new();
    for (whole, parts) in JOINED {
        for (block, end) in places(tensors, parts) {
            let names: Vec<String> =
                parts.iter().map(|part| format!("{block}{part}{end}")).collect();
            let mut found: Vec<Option<Tensor>> = names.iter().map(|n| tensors.remove(n)).collect();
            if end == ".bias" && parts.len() == 3 && !keys_biased {
                found[1] = found[0].as_ref().map(Tensor::zeros_like).transpose()?;
            }
            let lacking =
                names.iter().zip(&found).filter(|(_, t)| t.is_none()).map(|(n, _)| n.clone());
            missing.extend(lacking);
            let found: Vec<Tensor> = found.into_iter().flatten().collect();
            if found.len() == parts.len() {
                tensors.insert(format!("{block}{whole}{end}"), stacked(&found)?);
            }
        }
    }
    Ok(missing)
}

/// Where parts of a joined tensor stand: what is before the part's name and what is after it.
fn places(tensors: &BTreeMap<String, Tensor>, parts: &[&str]) -> BTreeSet<(String, String)> {
    let place = |name: &String| {
        let (layer, end) = name.rsplit_once('.')?;
        let part = parts.iter().find(|part| layer.ends_with(&format!(".{part}")))?;
        Some((layer[..layer.len() - part.len()].to_owned(), format!(".{end}")))
    };
    tensors.keys().filter_map(place).collect()
}

/// The rows of all of them, in the type of the widest.
fn stacked(parts: &[Tensor]) -> Result<Tensor> {
    let same = parts.iter().all(|t| t.dtype() == parts[0].dtype());
    let f64 = parts.iter().any(|t| t.dtype() == DType::F64);
    let dtype = if same {
        parts[0].dtype()
    } else if f64 {
        DType::F64
    } else {
        DType::F32
    };
    let parts = parts.iter().map(|t| t.to_dtype(dtype)).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Brings tokens and positions into timm's shape, and parts the pool's joint projection.
fn reshape(tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
    for name in ["cls_token", "dist_token", "reg_token", "pos_embed", "attn_pool.latent"] {
        if let Some(tensor) = tensors.get_mut(name) {
            while tensor.rank() < 3 {
                *tensor = tensor.unsqueeze(0)?;
            }
        }
    }
    for end in ["weight", "bias"] {
        let Some(whole) = tensors.get(&format!("attn_pool.qkv.{end}")).cloned() else { continue };
        let rows = whole.dim(0)?;
        if rows % 3 == 0 {
            let dim = rows / 3;
            tensors.remove(&format!("attn_pool.qkv.{end}"));
            tensors.insert(format!("attn_pool.q.{end}"), whole.narrow(0, 0, dim)?.contiguous()?);
            tensors.insert(
                format!("attn_pool.kv.{end}"),
                whole.narrow(0, dim, 2 * dim)?.contiguous()?,
            );
        }
    }
    Ok(())
}
