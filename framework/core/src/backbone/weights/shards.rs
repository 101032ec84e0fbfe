//! Weights in several files, by their index: `model.safetensors.index.json` and the like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{WeightsFile, read_bytes};
use crate::{Error, Result};

/// An index of shards.
#[derive(Deserialize)]
pub(super) struct Index {
    /// The file that each tensor is in.
    weight_map: BTreeMap<String, String>,
}

/// The index that these bytes are, if they are one.
pub(super) fn index(bytes: &[u8]) -> Option<Index> {
    let begin = bytes.iter().find(|b| !b.is_ascii_whitespace())?;
    (*begin == b'{').then(|| serde_json::from_slice(bytes).ok())?
}

/// The files that an index names.
pub(in crate::backbone) fn names(path: &Path) -> Result<BTreeSet<String>> {
    let bytes = read_bytes(path)?;
    let index = index(&bytes).ok_or_else(|| Error::file(path, "it is no index of shards"))?;
    Ok(index.weight_map.into_values().collect())
}

/// Reads all shards. Each tensor comes from the file that the index names.
pub(super) fn read(path: &Path, bytes: &[u8], index: &Index) -> Result<WeightsFile> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    let mut hash = Sha256::new_with_prefix(bytes);
    let mut whole =
        WeightsFile::from_tensors("", String::new(), Default::default(), BTreeMap::new());
    whole.path = path.to_path_buf();
    for file in files {
        let mut parts = Path::new(file).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(Error::file(
                path,
                format!("'{file}' is no name of a file beside the index"),
            ));
        }
        let held: BTreeSet<&str> =
            index.weight_map.iter().filter(|(_, f)| *f == file).map(|(n, _)| n.as_str()).collect();
        let at = folder.join(file);
        if !at.is_file() {
            let (n, all) = (held.len(), index.weight_map.len());
            let what = format!("the shard {file} is missing beside it ({n} of {all} tensors)");
            return Err(Error::file(path, format!("{what}; download it into the same folder")));
        }
        let shard = WeightsFile::parse(&at, &read_bytes(&at)?)?;
        hash.update(format!("{file} {}\n", shard.hash));
        if let Some(name) = held.iter().find(|n| shard.shape(n).is_none()) {
            let what = format!(
                "the index {} says that '{name}' is in it, which is not so",
                path.display()
            );
            return Err(Error::file(&at, format!("{what}; get both anew")));
        }
        whole.metadata.extend(shard.metadata);
        whole.notes.extend(shard.notes);
        whole.tensors.extend(shard.tensors.into_iter().filter(|(n, _)| held.contains(n.as_str())));
    }
    whole.hash = crate::hex(&hash.finalize());
    Ok(whole)
}

/// An error for one shard of several, `…-00001-of-00003.safetensors`.
pub(super) fn refuse_lone_shard(path: &Path) -> Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((stem, ending)) = name.rsplit_once('.') else { return Ok(()) };
    let mut parts = stem.rsplitn(4, '-');
    let (Some(count), Some("of"), Some(number), Some(begin)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(());
    };
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(count) || !digits(number) || count == "00001" {
        return Ok(());
    }
    let index = format!("{begin}.{ending}.index.json");
    let there = path.with_file_name(&index).is_file();
    let what =
        if there { "name that" } else { "download it and all shards into one folder, and name it" };
    let all = count.trim_start_matches('0');
    Err(Error::file(path, format!("it is one of {all} shards; their index is {index}: {what}")))
}
