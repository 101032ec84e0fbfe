//! DomainNet by its official lists, and DN4IL, its subset for domain-incremental learning.
//!
//! Sample key: the path in the lists, `<domain>/<class>/<file>`. Only lists are held in memory:
//! they name 586 575 images.

use std::io::Read;
use std::path::{Path, PathBuf};

use cilbench::data::{
    Dataset, DatasetEntry, FileSet, Line, Place, Sample, Source, SplitAbout, parse_list, read_list,
};
use cilbench::{Error, Result};
use rayon::prelude::*;

const DOMAINS: [&str; 6] = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"];

inventory::submit! {
    DatasetEntry {
        name: "domainnet",
        summary: "345 classes in six domains: clipart, infograph, painting, quickdraw, real, sketch; 586 575 images",
        source: "Peng et al.: Moment Matching for Multi-Source Domain Adaptation (ICCV 2019, arXiv 1812.01754)",
        files: "the folders clipart/, infograph/, painting/, quickdraw/, real/ and sketch/ of the archives of ai.bu.edu/M3SDA (cleaned version), \
                unpacked, and beside them the lists clipart_train.txt, clipart_test.txt, …, in it or in its folder domainnet",
        aliases: &[],
        splits: &[SplitAbout { name: "official", summary: "the lists <domain>_train.txt and <domain>_test.txt", images: None }],
        hub: None,
        open: official,
    }
}

inventory::submit! {
    DatasetEntry {
        name: "dn4il",
        summary: "100 classes of DomainNet in its six domains, a balanced subset",
        source: "Gowda, Zonooz, Arani: Dual Cognitive Architecture (TMLR 2023); lists: NeurAI-Lab, MIT",
        files: "the image folders of DomainNet: clipart/, infograph/, painting/, quickdraw/, real/ and sketch/ of ai.bu.edu/M3SDA (cleaned version), \
                in it or in its folder domainnet; the lists are built in",
        aliases: &["domainnet"],
        splits: &[SplitAbout { name: "official", summary: "the lists of NeurAI-Lab (built in)", images: Some((67_080, 19_464)) }],
        hub: None,
        open: dn4il,
    }
}

/// The folder with a domain's folder or list in it.
fn find(entry: &DatasetEntry, source: &Source) -> Result<PathBuf> {
    let root = source.root(entry)?;
    let places = ["", "domainnet", "DomainNet", "domain_net"].map(|p| root.join(p));
    let has = |p: &&PathBuf| {
        DOMAINS.iter().any(|d| p.join(d).is_dir() || p.join(format!("{d}_train.txt")).is_file())
    };
    places.iter().find(has).cloned().ok_or_else(|| {
        source.not_found(entry, "clipart/ and clipart_train.txt in it and in its folder domainnet")
    })
}

fn official(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    const CLASSES: usize = 345;
    let folder = find(entry, source)?;
    let names: Vec<PathBuf> = DOMAINS
        .iter()
        .flat_map(|d| ["train", "test"].map(|s| PathBuf::from(format!("{d}_{s}.txt"))))
        .collect();
    let places = [folder.clone(), folder.join("splits")];
    let lists: Vec<PathBuf> = names
        .iter()
        .map(|name| {
            let found = places.iter().map(|p| p.join(name)).find(|p| p.is_file());
            found.ok_or_else(|| {
                Error::usage(format!(
                    "data set domainnet: there is no list {}. It needs {}",
                    places[0].join(name).display(),
                    entry.files
                ))
            })
        })
        .collect::<Result<_>>()?;
    let lines: Vec<Vec<Line>> =
        lists.par_iter().map(|list| read_list(list, CLASSES)).collect::<Result<_>>()?;
    Ok(Box::new(assemble(folder, lists, lines, CLASSES)?))
}

fn dn4il(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    Ok(Box::new(built_in(find(entry, source)?)?))
}

fn built_in(folder: PathBuf) -> Result<FileSet> {
    const CLASSES: usize = 100;
    let unzip = |name: &str, gz: &[u8]| -> Result<(PathBuf, Vec<Line>)> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(gz).read_to_string(&mut text).map_err(Error::io(name))?;
        Ok((name.into(), parse_list(&text, Path::new(name), CLASSES)?))
    };
    let train =
        unzip("dn4il-train.txt (built in)", include_bytes!("../splits/dn4il-train.txt.gz"))?;
    let test = unzip("dn4il-test.txt (built in)", include_bytes!("../splits/dn4il-test.txt.gz"))?;
    assemble(folder, vec![train.0, test.0], vec![train.1, test.1], CLASSES)
}

/// The set of these lists, training and test lists by turns.
fn assemble(
    folder: PathBuf,
    lists: Vec<PathBuf>,
    lines: Vec<Vec<Line>>,
    classes: usize,
) -> Result<FileSet> {
    let mut names: Vec<Option<String>> = vec![None; classes];
    let mut sides = [Vec::new(), Vec::new()];
    for (number, (list, lines)) in lists.iter().zip(lines).enumerate() {
        for line in lines {
            let bad = |what: String| Error::file(list, format!("line {}: {what}", line.number));
            let mut parts = line.path.split('/');
            let (domain, class) =
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let domain = DOMAINS.iter().position(|d| *d == domain);
            let domain = domain.ok_or_else(|| {
                bad(format!(
                    "'{}' begins with no domain ({}); paths are <domain>/<class>/<file>",
                    line.path,
                    DOMAINS.join(", ")
                ))
            })?;
            match &names[line.label] {
                Some(name) if name != class => {
                    return Err(bad(format!(
                        "label {} is '{name}' elsewhere and '{class}' here; are all lists of one version?",
                        line.label
                    )));
                }
                Some(_) => {}
                None => names[line.label] = Some(class.to_owned()),
            }
            let place = Place { folder: 0, list: Some(number as u16), line: line.number };
            sides[number % 2].push((Sample { key: line.path, label: line.label, domain }, place));
        }
    }
    let names = names
        .into_iter()
        .enumerate()
        .map(|(i, n)| n.unwrap_or_else(|| format!("class {i}")))
        .collect();
    let [train, test] = sides;
    Ok(FileSet::new(names, DOMAINS.map(str::to_owned).to_vec(), vec![folder], lists)
        .with(train, test))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use cilbench::data::Split;

    use super::*;

    #[test]
    fn dn4il_has_100_classes_in_each_of_six_domains() {
        let set = built_in("nowhere".into()).expect("lists");
        let (train, test) = (set.samples(Split::Train), set.samples(Split::Test));
        assert_eq!((train.len(), test.len()), (67_080, 19_464));
        for domain in 0..6 {
            let classes: std::collections::HashSet<usize> =
                train.iter().filter(|s| s.domain == domain).map(|s| s.label).collect();
            assert_eq!(classes.len(), 100, "{domain}");
        }
        assert_eq!(set.class_names()[0], "aircraft_carrier");
    }

    /// The official lists' format, three images per class and domain.
    fn lists(root: &Path) {
        for domain in DOMAINS {
            for (side, files) in [("train", 2), ("test", 1)] {
                let mut text = String::new();
                for class in 0..345 {
                    (0..files).for_each(|i| {
                        writeln!(text, "{domain}/class_{class:03}/{side}_{i}.jpg {class}")
                            .expect("text")
                    });
                }
                std::fs::write(root.join(format!("{domain}_{side}.txt")), text).expect("list");
            }
        }
    }

    #[test]
    fn the_official_lists_are_read_and_what_is_wrong_is_named() {
        let root = tempfile::tempdir().expect("folder");
        lists(root.path());
        let entry = cilbench::data::find("domainnet").expect("registered");
        let source = Source::new(Some(root.path().into()), entry.split(None).expect("split"));
        let set = entry.load(&source).expect("open");
        assert_eq!(
            (set.samples(Split::Train).len(), set.samples(Split::Test).len()),
            (6 * 345 * 2, 6 * 345)
        );
        assert_eq!((set.class_names()[7].as_str(), set.domain_names().len()), ("class_007", 6));
        let message = || entry.load(&source).err().expect("must fail").to_string();
        let sketch = root.path().join("sketch_test.txt");
        std::fs::write(&sketch, "sketch/class_000/a.jpg 0\nsketch/class_344/b.jpg 345\n")
            .expect("list");
        assert!(
            message().contains("sketch_test.txt: line 2: label 345 is out of range"),
            "{}",
            message()
        );
        std::fs::write(&sketch, "sketch/class_000/a.jpg 1\n").expect("list");
        assert!(
            message().contains("line 1: label 1 is 'class_001' elsewhere and 'class_000' here"),
            "{}",
            message()
        );
        std::fs::write(&sketch, "class_000/a.jpg 1\n").expect("list");
        assert!(message().contains("begins with no domain"), "{}", message());
        std::fs::remove_file(&sketch).expect("remove");
        assert!(
            message().contains("there is no list") && message().contains("sketch_test.txt"),
            "{}",
            message()
        );
    }
}
