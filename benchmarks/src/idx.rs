//! IDX files of bytes, the format of MNIST and Fashion-MNIST, gzipped or not.

use std::io::Read;
use std::path::Path;

use cilbench::data::{Decoded, RgbImage};
use cilbench::{Error, Result};

/// The most bytes that are unpacked: 20 times what Fashion-MNIST has.
const LARGEST: u64 = 1 << 30;

/// The dimensions and the values of an IDX file.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<usize>, Vec<u8>)> {
    let bad = |what: String| Error::file(path, format!("{what}; download it again"));
    let mut unpacked = Vec::new();
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(bytes)
            .take(LARGEST)
            .read_to_end(&mut unpacked)
            .map_err(|e| bad(format!("not a whole gzip file ({e})")))?;
        &unpacked
    } else {
        bytes
    };
    let [0, 0, 8, count, rest @ ..] = bytes else {
        return Err(bad("not an IDX file of bytes".into()));
    };
    let header = 4 * usize::from(*count);
    if rest.len() < header {
        return Err(bad("the IDX header is truncated".into()));
    }
    let dims: Vec<usize> = rest[..header]
        .chunks(4)
        .map(|d| d.iter().fold(0, |n, b| 256 * n + usize::from(*b)))
        .collect();
    if Some(rest.len() - header) != dims.iter().try_fold(1usize, |a, b| a.checked_mul(*b)) {
        return Err(bad("the IDX file's length does not fit its header".into()));
    }
    Ok((dims, rest[header..].to_vec()))
}

/// Grey images and their labels, from `0` to `classes` − 1; the paths are for messages.
pub(crate) fn images(
    images: (&Path, &[u8]),
    labels: (&Path, &[u8]),
    classes: usize,
) -> Result<Decoded> {
    let ((dims, pixels), (_, classed)) = (parse(images.0, images.1)?, parse(labels.0, labels.1)?);
    let [n, height, width] = dims[..] else {
        return Err(Error::file(images.0, format!("expected images, found the shape {dims:?}")));
    };
    if classed.len() != n {
        return Err(Error::file(
            labels.0,
            format!(
                "{} labels for {n} images in {}; download both again",
                classed.len(),
                images.0.display()
            ),
        ));
    }
    if let Some(i) = classed.iter().position(|l| usize::from(*l) >= classes) {
        return Err(Error::file(
            labels.0,
            format!(
                "image {i}: label {} is not a class (0 to {}); is it another data set's?",
                classed[i],
                classes - 1
            ),
        ));
    }
    let size = width * height;
    let image = |i: usize| {
        RgbImage::from_grey(width as u32, height as u32, &pixels[i * size..(i + 1) * size])
    };
    Ok(Decoded::new((0..n).map(|i| (image(i), usize::from(classed[i]))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_named() {
        let (path, labels) = (Path::new("images.gz"), Path::new("labels.gz"));
        let data = [&[0u8, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1][..], &[7, 9]].concat();
        let of = |l: &[u8]| [&[0u8, 0, 8, 1, 0, 0, 0, l.len() as u8][..], l].concat();
        assert_eq!(
            images((path, &data), (labels, &of(&[0, 1])), 2).expect("whole").samples().len(),
            2
        );
        let message = |a: &[u8], b: &[u8]| {
            images((path, a), (labels, b), 2).err().expect("must fail").to_string()
        };
        assert!(message(b"not idx", &of(&[0, 1])).contains("images.gz: not an IDX file"));
        assert!(message(&[0x1f, 0x8b, 0], &of(&[0, 1])).contains("not a whole gzip file"));
        assert!(message(&data[..17], &of(&[0, 1])).contains("length does not fit"));
        assert!(message(&data, &of(&[0])).contains("1 labels for 2 images"));
        assert!(message(&data, &of(&[0, 2])).contains("image 1: label 2 is not a class"));
    }
}
