//! The transforms against Pillow's, from the same pixels: `pillow/make.py` made the expected
//! images.

use cilbench::data::{CropBox, RgbImage, Scale, Transforms, decode, decode_as};

fn source(width: u32, height: u32) -> RgbImage {
    let value = |i: u32| {
        let noise = i.wrapping_mul(2_654_435_761) >> 24;
        let ramp = i / 3 % width * 255 / width;
        ((noise + 2 * ramp) / 3) as u8
    };
    RgbImage { width, height, pixels: (0..width * height * 3).map(value).collect() }
}

/// The largest and the mean difference, in steps of 1/255, of planes in \[0, 1\] from an expected
/// PNG.
fn difference(planes: &[f32], png: &[u8]) -> (f64, f64) {
    let expected = decode(png).expect("PNG");
    let n = (expected.width * expected.height) as usize;
    assert_eq!(planes.len(), 3 * n);
    let all: Vec<f64> = (0..3 * n)
        .map(|i| {
            (f64::from(planes[i]) * 255.0 - f64::from(expected.pixels[3 * (i % n) + i / n])).abs()
        })
        .collect();
    (all.iter().copied().fold(0.0, f64::max), all.iter().sum::<f64>() / all.len() as f64)
}

fn check(name: &str, planes: &[f32], png: &[u8]) {
    let (max, mean) = difference(planes, png);
    println!("{name}: max {max:.2}, mean {mean:.4}");
    assert!(max < 1.5 && mean < 0.1, "{name}: max {max}, mean {mean} of 255");
}

#[test]
fn the_test_transform_is_pillow_s() {
    macro_rules! case {
        ($w:literal, $h:literal, $s:literal) => {
            let planes = Transforms::new($s).test(&source($w, $h)).expect("transform");
            check(
                concat!($w, "x", $h, "-", $s),
                &planes,
                include_bytes!(concat!("pillow/test-", $w, "x", $h, "-", $s, ".png")),
            );
        };
    }
    case!(28, 28, 32);
    case!(50, 31, 32);
    case!(31, 50, 32);
    case!(90, 67, 24);
    case!(32, 32, 64);
}

#[test]
fn the_train_transform_of_a_given_crop_is_pillow_s() {
    macro_rules! case {
        ($w:literal, $h:literal, $s:literal, $left:literal, $top:literal, $cw:literal, $ch:literal) => {
            let crop = CropBox { left: $left, top: $top, width: $cw, height: $ch };
            let planes = Transforms::new($s).train(&source($w, $h), crop, false).expect("transform");
            let png = include_bytes!(concat!("pillow/train-", $w, "x", $h, "-", $s, "-", $left, "-", $top, "-", $cw, "-", $ch, ".png"));
            check(stringify!($w x $h), &planes, png);
        };
    }
    case!(90, 67, 24, 10, 5, 60, 40);
    case!(32, 32, 48, 3, 7, 20, 22);
    case!(50, 31, 32, 0, 0, 50, 31);
}

#[test]
fn every_kind_of_file_becomes_the_rgb_that_pillow_makes_of_it() {
    macro_rules! kind {
        ($name:literal, $tolerance:literal) => {
            let got = decode(include_bytes!(concat!("pillow/", $name))).expect($name);
            let expected = decode(include_bytes!(concat!("pillow/", $name, ".expected.png")))
                .expect("expected");
            assert_eq!((got.width, got.height), (expected.width, expected.height), $name);
            let worst = got
                .pixels
                .iter()
                .zip(&expected.pixels)
                .map(|(a, b)| a.abs_diff(*b))
                .max()
                .expect("pixels");
            println!("{}: {worst}", $name);
            assert!(worst <= $tolerance, "{}: {worst}", $name);
        };
    }
    // JPEG decoders upsample colours differently; these images are colour noise, the worst case (a
    // photograph: 4 at most, 0.25 in the mean).
    kind!("420.jpg", 16);
    kind!("progressive.jpg", 16);
    kind!("orientation.jpg", 16);
    kind!("grey.jpg", 2);
    kind!("cmyk.jpg", 3);
    kind!("palette.png", 0);
    kind!("grey-alpha.png", 0);
    kind!("one-bit.png", 0);
    kind!("grey16.png", 0);
    kind!("lossless.webp", 0);
    kind!("palette.gif", 0);
    kind!("plain.bmp", 0);
    kind!("plain.tif", 0);
    kind!("lzw.tif", 0);
    kind!("deflate-grey.tif", 0);
    kind!("grey16.tif", 0);
    kind!("alpha.tif", 0);
    kind!("422.jpg", 16);
    kind!("444.jpg", 3);
}

#[test]
fn grey_of_16_bits_keeps_its_upper_bits_where_a_scenario_says_so() {
    for file in
        [include_bytes!("pillow/grey16.png").as_slice(), include_bytes!("pillow/grey16.tif")]
    {
        let pixels = |scale| {
            decode_as(file, scale)
                .expect("image")
                .pixels
                .into_iter()
                .step_by(3)
                .collect::<Vec<u8>>()
        };
        assert_eq!(pixels(Scale::EightBit), [7, 255, 255]);
        assert_eq!(pixels(Scale::SixteenBit), [0, 0, 9]);
    }
}
