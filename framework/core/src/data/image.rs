//! Decoded images, and decoding of PNG and JPEG files to RGB.

/// An 8-bit RGB image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// width·height·3 bytes, row by row, R, G and B interleaved.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// A grey image as RGB.
    pub fn from_grey(width: u32, height: u32, grey: &[u8]) -> Self {
        Self { width, height, pixels: grey.iter().flat_map(|g| [*g; 3]).collect() }
    }
}

/// Decodes a JPEG, PNG, WebP, GIF (first frame) or BMP file to RGB as Pillow's `convert("RGB")` does: grey is tripled, palettes are looked up, an alpha
/// channel is dropped, CMYK is multiplied out, 16-bit colours keep their high byte, 16-bit grey is cut off at 255. An EXIF orientation is ignored, as
/// torchvision does.
///
/// # Errors
/// What is wrong with the bytes; the caller knows which file they are from.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the image has no bytes".into());
    }
    if is_cut_jpeg(bytes) {
        return Err("the image cannot be decoded: it is truncated, the end of the JPEG is missing".into());
    }
    let image = image::load_from_memory(bytes).map_err(|e| format!("the image cannot be decoded: {e}"))?;
    // Dropping alpha, not blending it: what Pillow does.
    let rgb = match image {
        image::DynamicImage::ImageLuma16(grey) => {
            let cut_off: Vec<u8> = grey.as_raw().iter().map(|v| (*v).min(255) as u8).collect();
            return Ok(RgbImage::from_grey(grey.width(), grey.height(), &cut_off));
        }
        image::DynamicImage::ImageRgb16(_) | image::DynamicImage::ImageRgba16(_) => {
            let deep = image.into_rgb16();
            let pixels = deep.as_raw().iter().map(|v| (v >> 8) as u8).collect();
            return Ok(RgbImage { width: deep.width(), height: deep.height(), pixels });
        }
        other => other.into_rgb8(),
    };
    Ok(RgbImage { width: rgb.width(), height: rgb.height(), pixels: rgb.into_raw() })
}

/// Whether a JPEG has no end-of-image marker after its last scan begins. The decoder would fill the rest with grey; Pillow refuses such a file.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    // Neither marker can occur within a scan's data. Most files end with the marker, so that the search from the end is short.
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
        let noise = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * 31 + y * 17) as u8, (x * y) as u8, (x ^ y) as u8]));
        noise.write_to(&mut whole, image::ImageFormat::Jpeg).expect("encode");
        let whole = whole.into_inner();
        decode(&whole).expect("whole");
        decode(&[&whole[..], b"garbage"].concat()).expect("with something behind it");
        for end in [whole.len() - 2, whole.len() - 40, whole.len() / 2, 700] {
            assert!(decode(&whole[..end]).is_err(), "{end} of {}", whole.len());
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(decode(b"").is_err());
        assert!(decode(b"this is not an image, it is a text").is_err());
    }
}
