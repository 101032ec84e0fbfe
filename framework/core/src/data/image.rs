//! Decoded images, and decoding of image files to RGB.

use std::io::{BufReader, Cursor};
use std::path::Path;

use image::{ColorType, DynamicImage, ImageDecoder, ImageReader};
use serde::{Deserialize, Serialize};

use super::guarded;

/// The version of the decoder. It is raised whenever a pixel that was decoded before becomes
/// another.
pub const DECODER_VERSION: u32 = 1;

/// The most pixels that an image may have, and that it may have after it is scaled: beyond them
/// Pillow, too, refuses an image as a decompression bomb. A decoded image of this size takes 537
/// MB.
pub const MAX_PIXELS: u64 = 178_956_970;

/// An 8-bit RGB image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// width·height·3 bytes, row by row, R, G and B interleaved.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// A grey image as RGB.
    pub fn from_grey(width: u32, height: u32, grey: &[u8]) -> Self {
        let mut pixels = Vec::with_capacity(3 * grey.len());
        grey.iter().for_each(|g| pixels.extend([*g; 3]));
        Self { width, height, pixels }
    }
}

/// How grey images of 16 bits become 8 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scale {
    /// Values above 255 are cut off, as Pillow's `convert("RGB")` does: nearly all of a usual image
    /// becomes white.
    #[default]
    #[serde(rename = "8-bit")]
    EightBit,
    /// The upper 8 bits are kept.
    #[serde(rename = "16-bit")]
    SixteenBit,
}

/// What the beginning of an image file says of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Whether it is grey with 16 bits per pixel, so that [`Scale`] matters.
    pub deep_grey: bool,
}

impl Header {
    fn of(decoder: &impl ImageDecoder) -> Self {
        let (width, height) = decoder.dimensions();
        Self { width, height, deep_grey: decoder.color_type() == ColorType::L16 }
    }

    /// An error for an image that is too large to be decoded, before memory is taken for it.
    ///
    /// # Errors
    /// The size, the bound, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        if pixels <= MAX_PIXELS {
            return Ok(());
        }
        Err(format!(
            "the image is {}×{}, {:.0} million pixels, which take {:.1} GB; at most {:.0} million are decoded: scale the image down",
            self.width,
            self.height,
            pixels as f64 / 1e6,
            3.0 * pixels as f64 / 1e9,
            MAX_PIXELS as f64 / 1e6
        ))
    }
}

/// What an image file's beginning says; the pixels are not decoded.
///
/// # Errors
/// What is wrong with the file.
pub fn header(path: &Path) -> Result<Header, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let read = || {
        let reader = ImageReader::new(BufReader::new(file))
            .with_guessed_format()
            .map_err(|e| e.to_string())?;
        Ok(Header::of(&reader.into_decoder().map_err(|e| undecodable(&e))?))
    };
    guarded(read).unwrap_or_else(|| Err("the image's header is damaged".into()))
}

/// [`decode_as`] with [`Scale::EightBit`].
///
/// # Errors
/// What is wrong with the bytes; the caller knows which file they are from.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    decode_as(bytes, Scale::EightBit)
}

/// Decodes a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF (first page) file to RGB as Pillow's
/// `convert("RGB")` does: grey is tripled, palettes are looked up, an alpha channel is dropped,
/// CMYK is multiplied out, 16-bit colours keep their upper 8 bits, and 16-bit grey is converted as
/// `scale` says.
///
/// The part of a GIF that its first frame does not cover is black; Pillow gives it a colour of the
/// palette. The decoder rounds the upsampled chroma of a JPEG twice where libjpeg-turbo, and so
/// Pillow, rounds once: on 175 photographs and drawings of PACS colours differ by 4 of 255 at most,
/// by 0.2 in the mean, with a bias of +0.17 (red), −0.13 (green) and +0.23 (blue).
///
/// A rotation that EXIF data asks for is not carried out, as torchvision's `ImageFolder` does not:
/// the pixels are those that the file holds. The file's content decides on its format, not its
/// ending.
///
/// # Errors
/// What is wrong with the bytes; the caller knows which file they are from. An image of more than
/// [`MAX_PIXELS`] is refused by its header.
pub fn decode_as(bytes: &[u8], scale: Scale) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the image has no bytes".into());
    }
    if is_cut_jpeg(bytes) {
        return Err(
            "the image cannot be decoded: it is truncated, the end of the JPEG is missing".into()
        );
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(
            "this is a pointer of Git LFS and not the image: fetch the images with git lfs pull"
                .into(),
        );
    }
    let decoded = guarded(|| decode_whole(bytes));
    to_rgb(
        decoded.unwrap_or_else(|| Err("the image cannot be decoded: it is damaged".into()))?,
        scale,
    )
}

fn decode_whole(bytes: &[u8]) -> Result<DynamicImage, String> {
    let reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let decoder = reader.into_decoder().map_err(|e| undecodable(&e))?;
    Header::of(&decoder).check()?;
    DynamicImage::from_decoder(decoder).map_err(|e| undecodable(&e))
}

fn undecodable(error: &image::ImageError) -> String {
    match error {
        image::ImageError::Limits(_) => {
            format!("the image takes more than 512 MiB to decode ({error}): scale it down")
        }
        _ => format!("the image cannot be decoded: {error}"),
    }
}

/// An image's pixels as Pillow converts them. Alpha is dropped and not blended.
fn to_rgb(image: DynamicImage, scale: Scale) -> Result<RgbImage, String> {
    let rgb = match image {
        DynamicImage::ImageLuma16(grey) => {
            let convert = |v: &u16| match scale {
                Scale::EightBit => (*v).min(255) as u8,
                Scale::SixteenBit => (*v >> 8) as u8,
            };
            let flat: Vec<u8> = grey.as_raw().iter().map(convert).collect();
            return Ok(RgbImage::from_grey(grey.width(), grey.height(), &flat));
        }
        DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgba16(_) => {
            let deep = image.into_rgb16();
            let pixels = deep.as_raw().iter().map(|v| (v >> 8) as u8).collect();
            return Ok(RgbImage { width: deep.width(), height: deep.height(), pixels });
        }
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            return Err("the image has floating-point values, and nothing says which is white: convert it to 8 bits".into());
        }
        other => other.into_rgb8(),
    };
    Ok(RgbImage { width: rgb.width(), height: rgb.height(), pixels: rgb.into_raw() })
}

/// Whether a JPEG has no end-of-image marker after its last scan begins. The decoder would fill the
/// rest with grey; Pillow refuses such a file.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    // Neither marker can occur within a scan's data. Most files end with the marker, so that the
    // search from the end is short.
    let last = |marker: u8| bytes.windows(2).rposition(|w| w == [0xff, marker]);
    bytes.starts_with(&[0xff, 0xd8]) && !bytes.ends_with(&[0xff, 0xd9]) && last(0xd9) < last(0xda)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_of_every_kind_becomes_rgb() {
        let encode = |image: image::DynamicImage| {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, image::ImageFormat::Png).expect("encode");
            bytes.into_inner()
        };
        let grey = image::GrayImage::from_raw(2, 1, vec![7, 200]).expect("grey");
        assert_eq!(decode(&encode(grey.into())).expect("grey").pixels, [7, 7, 7, 200, 200, 200]);
        let rgba = image::RgbaImage::from_raw(1, 1, vec![10, 20, 30, 0]).expect("rgba");
        assert_eq!(decode(&encode(rgba.into())).expect("rgba").pixels, [10, 20, 30]);
    }

    #[test]
    fn a_truncated_jpeg_is_refused_and_one_with_something_behind_it_is_not() {
        let mut whole = std::io::Cursor::new(Vec::new());
        let noise = image::RgbImage::from_fn(64, 64, |x, y| {
            image::Rgb([(x * 31 + y * 17) as u8, (x * y) as u8, (x ^ y) as u8])
        });
        noise.write_to(&mut whole, image::ImageFormat::Jpeg).expect("encode");
        let whole = whole.into_inner();
        decode(&whole).expect("whole");
        decode(&[&whole[..], b"garbage"].concat()).expect("with something behind it");
        for end in [whole.len() - 2, whole.len() - 40, whole.len() / 2, 700] {
            assert!(decode(&whole[..end]).is_err(), "{end} of {}", whole.len());
        }
    }

    /// A PNG of one row of grey pixels, and its claim of another size.
    fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image::GrayImage::new(1, 1).write_to(&mut bytes, image::ImageFormat::Png).expect("encode");
        let mut bytes = bytes.into_inner();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, b| {
            (0..8)
                .fold(crc ^ u32::from(*b), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
        })
    }

    #[test]
    fn an_image_beyond_the_bound_is_refused_by_its_header() {
        for (width, height) in [(20_000, 20_000), (2_000_000, 90), (1, 180_000_000)] {
            let message = decode(&png_that_claims(width, height)).expect_err("too large");
            assert!(
                message.contains(&format!("{width}×{height}"))
                    && message.contains("scale the image down"),
                "{message}"
            );
        }
        // Within the bound it is the missing pixels that are named.
        assert!(
            decode(&png_that_claims(300, 200))
                .expect_err("no pixels")
                .contains("cannot be decoded")
        );
    }

    #[test]
    fn a_header_says_what_the_pixels_will_be() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.png");
        let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(3, 2, vec![900u16; 6])
            .expect("grey");
        deep.save(&path).expect("save");
        assert_eq!(header(&path).expect("header"), Header { width: 3, height: 2, deep_grey: true });
        std::fs::write(&path, png_that_claims(70, 20)).expect("write");
        assert_eq!(
            header(&path).expect("header"),
            Header { width: 70, height: 20, deep_grey: false }
        );
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(
            decode(b"version https://git-lfs.github.com/spec/v1\noid sha256:1")
                .expect_err("LFS")
                .contains("git lfs pull")
        );
        assert!(decode(b"").is_err());
        assert!(decode(b"this is not an image, it is a text").is_err());
    }
}
