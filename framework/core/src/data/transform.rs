//! The two transforms of an image, as torchvision and Pillow compute them.
//!
//! Train: RandomResizedCrop (bilinear, antialiased) and a random horizontal flip. Test: the short
//! side resized to ⌊S·256/224⌋ (bicubic, antialiased) and the centre S×S. Resampling works on 8-bit
//! images, as Pillow's does. The result is in \[0, 1\]; normalisation belongs to the backbone.

use std::borrow::Cow;
use std::cell::RefCell;

use fast_image_resize as fir;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{MAX_PIXELS, RgbImage, Scale};
use crate::rng::Stream;

/// Which transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// Random crop and flip.
    Train,
    /// Resize and centre crop.
    Test,
}

/// A crop in pixels of the source image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The numbers of the two transforms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transforms {
    /// The side S of the result, in pixels.
    pub image_size: usize,
    /// Range of the crop's share of the image's area.
    pub crop_scale: [f64; 2],
    /// Range of the crop's width over its height.
    pub crop_ratio: [f64; 2],
    /// Whether training images are flipped, half of them.
    pub flip: bool,
    /// How grey images of 16 bits are read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scale: Scale,
}

/// Hashes over the transforms are what they were before there was a choice.
fn is_default(scale: &Scale) -> bool {
    *scale == Scale::default()
}

impl Transforms {
    /// The transforms of `protocols`: scale 0.05–1, ratio 3/4–4/3, flip.
    pub fn new(image_size: usize) -> Self {
        Self {
            image_size,
            crop_scale: [0.05, 1.0],
            crop_ratio: [0.75, 4.0 / 3.0],
            flip: true,
            scale: Scale::EightBit,
        }
    }

    /// The number of values of a result: 3·S·S.
    pub fn values(&self) -> usize {
        3 * self.image_size * self.image_size
    }

    /// torchvision's `RandomResizedCrop.get_params` and a flip: ten tries, then the largest central
    /// crop within the ratios.
    pub fn draw(&self, width: u32, height: u32, rng: &mut Stream) -> (CropBox, bool) {
        let area = f64::from(width) * f64::from(height);
        let ratio = self.crop_ratio.map(f64::ln);
        let mut found = None;
        for _ in 0..10 {
            let target = area * uniform(rng, self.crop_scale);
            let aspect = uniform(rng, ratio).exp();
            let w = (target * aspect).sqrt().round_ties_even() as u32;
            let h = (target / aspect).sqrt().round_ties_even() as u32;
            if w > 0 && w <= width && h > 0 && h <= height {
                let (top, left) =
                    (rng.random_range(0..=height - h), rng.random_range(0..=width - w));
                found = Some(CropBox { left, top, width: w, height: h });
                break;
            }
        }
        let crop = found.unwrap_or_else(|| {
            let whole = f64::from(width) / f64::from(height);
            let (w, h) = if whole < self.crop_ratio[0] {
                (width, (f64::from(width) / self.crop_ratio[0]).round_ties_even() as u32)
            } else if whole > self.crop_ratio[1] {
                ((f64::from(height) * self.crop_ratio[1]).round_ties_even() as u32, height)
            } else {
                (width, height)
            };
            CropBox { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
        });
        (crop, self.flip && rng.random::<f64>() < 0.5)
    }

    /// The training transform with a given crop and flip: (3, S, S) in \[0, 1\].
    ///
    /// # Errors
    /// If the image or the crop is empty.
    pub fn train(&self, image: &RgbImage, crop: CropBox, flip: bool) -> Result<Vec<f32>, String> {
        let mut out = vec![0.0; self.values()];
        self.train_into(image, crop, flip, &mut out)?;
        Ok(out)
    }

    fn train_into(
        &self,
        image: &RgbImage,
        crop: CropBox,
        flip: bool,
        out: &mut [f32],
    ) -> Result<(), String> {
        if crop.width == 0
            || crop.height == 0
            || crop.left + crop.width > image.width
            || crop.top + crop.height > image.height
        {
            return Err(format!(
                "the crop {crop:?} does not lie in an image of {}×{}",
                image.width, image.height
            ));
        }
        // Pillow crops first: pixels outside the crop must not leak in at its borders.
        let cropped = if (crop.width, crop.height) == (image.width, image.height) {
            None
        } else {
            Some(cut(image, crop))
        };
        let size = self.image_size as u32;
        let resized =
            resize(cropped.as_ref().unwrap_or(image), size, size, fir::FilterType::Bilinear)?;
        planes(&resized, CropBox { left: 0, top: 0, width: size, height: size }, flip, out);
        Ok(())
    }

    /// The test transform: (3, S, S) in \[0, 1\].
    ///
    /// # Errors
    /// If the image is empty.
    pub fn test(&self, image: &RgbImage) -> Result<Vec<f32>, String> {
        let mut out = vec![0.0; self.values()];
        self.test_into(image, &mut out)?;
        Ok(out)
    }

    fn test_into(&self, image: &RgbImage, out: &mut [f32]) -> Result<(), String> {
        let size = self.image_size as u32;
        let short = size * 256 / 224;
        let (w, h) = (image.width, image.height);
        if w == 0 || h == 0 {
            return Err("the image has no pixels".into());
        }
        let long = u64::from(short) * u64::from(w.max(h)) / u64::from(w.min(h));
        let long = u32::try_from(long).ok().filter(|long| u64::from(*long) * u64::from(short) <= MAX_PIXELS).ok_or_else(|| {
            format!("the image is {w}×{h}: with its short side at {short} pixels, the long side would be {long}; crop the image")
        })?;
        let (nw, nh) = if w <= h { (short, long) } else { (long, short) };
        let resized = resize(image, nw, nh, fir::FilterType::CatmullRom)?;
        let offset = |n: u32| (f64::from(n - size) / 2.0).round_ties_even() as u32;
        planes(
            &resized,
            CropBox { left: offset(nw), top: offset(nh), width: size, height: size },
            false,
            out,
        );
        Ok(())
    }

    /// Either transform, written to `out` (3·S·S values); the training transform draws from `rng`.
    ///
    /// # Errors
    /// If the image is empty.
    pub fn apply(
        &self,
        image: &RgbImage,
        view: View,
        rng: &mut Stream,
        out: &mut [f32],
    ) -> Result<(), String> {
        match view {
            View::Test => self.test_into(image, out),
            View::Train if image.width == 0 || image.height == 0 => {
                Err("the image has no pixels".into())
            }
            View::Train => {
                let (crop, flip) = self.draw(image.width, image.height, rng);
                self.train_into(image, crop, flip, out)
            }
        }
    }
}

fn uniform(rng: &mut Stream, [low, high]: [f64; 2]) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

fn cut(image: &RgbImage, crop: CropBox) -> RgbImage {
    let mut pixels = Vec::with_capacity(3 * crop.width as usize * crop.height as usize);
    for y in crop.top..crop.top + crop.height {
        let start = 3 * (y as usize * image.width as usize + crop.left as usize);
        pixels.extend_from_slice(&image.pixels[start..start + 3 * crop.width as usize]);
    }
    RgbImage { width: crop.width, height: crop.height, pixels }
}

/// Resizes as Pillow does: first every row, rounded to 8 bits, then every column. (One call for
/// both would do the columns first.)
fn resize(
    image: &RgbImage,
    width: u32,
    height: u32,
    filter: fir::FilterType,
) -> Result<RgbImage, String> {
    let rows = pass(image, width, image.height, filter)?;
    pass(&rows, width, height, filter).map(Cow::into_owned)
}

thread_local! {
    /// Keeps its buffers from one image to the next.
    static RESIZER: RefCell<fir::Resizer> = RefCell::new(fir::Resizer::new());
}

/// One pass of a resampling: only one of the sides may change.
fn pass(
    image: &RgbImage,
    width: u32,
    height: u32,
    filter: fir::FilterType,
) -> Result<Cow<'_, RgbImage>, String> {
    if (width, height) == (image.width, image.height) {
        return Ok(Cow::Borrowed(image));
    }
    let source =
        fir::images::ImageRef::new(image.width, image.height, &image.pixels, fir::PixelType::U8x3)
            .map_err(|e| e.to_string())?;
    let mut target = fir::images::Image::new(width, height, fir::PixelType::U8x3);
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter));
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize(&source, &mut target, &options))
        .map_err(|e| e.to_string())?;
    Ok(Cow::Owned(RgbImage { width, height, pixels: target.into_vec() }))
}

/// A crop of an image as three planes in \[0, 1\], written to `out`.
fn planes(image: &RgbImage, crop: CropBox, flip: bool, out: &mut [f32]) {
    let (w, h) = (crop.width as usize, crop.height as usize);
    let (red, rest) = out.split_at_mut(w * h);
    let (green, blue) = rest.split_at_mut(w * h);
    let rows = red.chunks_exact_mut(w).zip(green.chunks_exact_mut(w)).zip(blue.chunks_exact_mut(w));
    for (y, ((red, green), blue)) in rows.enumerate() {
        let start = 3 * ((crop.top as usize + y) * image.width as usize + crop.left as usize);
        let pixels = image.pixels[start..start + 3 * w].chunks_exact(3);
        for (((r, g), b), pixel) in
            red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut()).zip(pixels)
        {
            (*r, *g, *b) = (
                f32::from(pixel[0]) / 255.0,
                f32::from(pixel[1]) / 255.0,
                f32::from(pixel[2]) / 255.0,
            );
        }
        if flip {
            [red, green, blue].into_iter().for_each(<[f32]>::reverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    fn pattern(width: u32, height: u32) -> RgbImage {
        let value = |i: u32| ((i.wrapping_mul(2_654_435_761)) >> 24) as u8;
        RgbImage { width, height, pixels: (0..width * height * 3).map(value).collect() }
    }

    #[test]
    fn sizes_are_torchvision_s() {
        for (w, h) in [(28, 28), (50, 31), (31, 50), (300, 200)] {
            assert_eq!(
                Transforms::new(32).test(&pattern(w, h)).expect("test").len(),
                3 * 32 * 32,
                "{w}×{h}"
            );
        }
    }

    #[test]
    fn crop_boxes_follow_the_definition() {
        let (t, mut rng) = (Transforms::new(32), stream(0, Purpose::Augmentation, &[&"test"]));
        let (mut shares, mut flips) = (Vec::new(), 0);
        for _ in 0..4000 {
            let (c, flip) = t.draw(100, 80, &mut rng);
            assert!(c.left + c.width <= 100 && c.top + c.height <= 80);
            let ratio = f64::from(c.width) / f64::from(c.height);
            assert!((0.7..1.45).contains(&ratio), "{c:?}");
            shares.push(f64::from(c.width * c.height) / 8000.0);
            flips += usize::from(flip);
        }
        assert!(shares.iter().all(|s| *s > 0.04));
        let mean = shares.iter().sum::<f64>() / 4000.0;
        // 0.4424 for 100×80 by 200 000 draws of torchvision's definition.
        assert!((0.43..0.455).contains(&mean), "{mean}");
        assert!((1850..2150).contains(&flips), "{flips}");
    }

    #[test]
    fn a_long_thin_image_falls_back_to_the_centre() {
        let (t, mut rng) = (
            Transforms { crop_scale: [1.0, 1.0], ..Transforms::new(8) },
            stream(0, Purpose::Augmentation, &[&"test"]),
        );
        let (c, _) = t.draw(400, 30, &mut rng);
        assert_eq!(c, CropBox { left: 180, top: 0, width: 40, height: 30 });
    }

    #[test]
    fn a_thin_image_is_not_scaled_up_beyond_the_bound() {
        for (w, h) in [(1, 400_000), (400_000, 1)] {
            let message = Transforms::new(224)
                .test(&RgbImage { width: w, height: h, pixels: vec![0; 1_200_000] })
                .expect_err("thin");
            assert!(message.contains("the long side would be 102400000"), "{message}");
        }
        assert!(Transforms::new(24).test(&pattern(1, 3000)).is_ok());
    }

    #[test]
    fn a_flip_mirrors_and_a_whole_crop_of_the_same_size_copies() {
        let (t, image) = (Transforms::new(8), pattern(8, 8));
        let whole = CropBox { left: 0, top: 0, width: 8, height: 8 };
        let (plain, flipped) = (
            t.train(&image, whole, false).expect("plain"),
            t.train(&image, whole, true).expect("flipped"),
        );
        assert_eq!(plain[0], f32::from(image.pixels[0]) / 255.0);
        for row in 0..24 {
            let mut mirrored = flipped[row * 8..row * 8 + 8].to_vec();
            mirrored.reverse();
            assert_eq!(mirrored, plain[row * 8..row * 8 + 8]);
        }
    }
}
