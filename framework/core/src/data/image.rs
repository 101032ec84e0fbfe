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
    fn what_is_no_image_is_refused() {
        assert!(decode(b"").is_err());
        assert!(decode(b"this is not an image, it is a text").is_err());
    }
}
