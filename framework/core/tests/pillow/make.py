"""Makes the PNG files beside it: what Pillow makes of the images of `source()` under the two transforms. `python3 make.py`, with Pillow."""

from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
TEST = [(28, 28, 32), (50, 31, 32), (31, 50, 32), (90, 67, 24), (32, 32, 64)]
TRAIN = [(90, 67, 24, (10, 5, 60, 40)), (32, 32, 48, (3, 7, 20, 22)), (50, 31, 32, (0, 0, 50, 31))]


def source(width, height):
    """Noise over a ramp: every value from integers alone, so that the Rust side makes the same."""
    pixels = bytearray()
    for i in range(width * height * 3):
        noise = ((i * 2654435761) & 0xFFFFFFFF) >> 24
        ramp = (i // 3 % width) * 255 // width
        pixels.append((noise + 2 * ramp) // 3)
    return Image.frombytes("RGB", (width, height), bytes(pixels))


for width, height, size in TEST:
    short = size * 256 // 224
    w, h = (short, short * height // width) if width <= height else (short * width // height, short)
    resized = source(width, height).resize((w, h), Image.Resampling.BICUBIC)
    left, top = round((w - size) / 2), round((h - size) / 2)
    resized.crop((left, top, left + size, top + size)).save(HERE / f"test-{width}x{height}-{size}.png")

for width, height, size, (left, top, w, h) in TRAIN:
    crop = source(width, height).crop((left, top, left + w, top + h))
    crop.resize((size, size), Image.Resampling.BILINEAR).save(HERE / f"train-{width}x{height}-{size}-{left}-{top}-{w}-{h}.png")

# Files of each kind, and what `convert("RGB")` makes of them.
kinds = {
    "420.jpg": (source(40, 24), {"quality": 90, "subsampling": 2}),
    "progressive.jpg": (source(40, 24), {"quality": 80, "progressive": True}),
    "grey.jpg": (source(40, 24).convert("L"), {"quality": 90}),
    "cmyk.jpg": (source(40, 24).convert("CMYK"), {"quality": 95}),
    "palette.png": (source(40, 24).quantize(16), {"transparency": 3}),
    "grey-alpha.png": (source(40, 24).convert("LA"), {}),
    "one-bit.png": (source(40, 24).convert("1"), {}),
    "grey16.png": (Image.frombytes("I;16", (3, 1), bytes([7, 0, 255, 0, 0, 9])), {}),
    "lossless.webp": (source(40, 24), {"lossless": True}),
    "palette.gif": (source(40, 24).quantize(16), {}),
    "plain.bmp": (source(40, 24), {}),
    "plain.tif": (source(40, 24), {}),
    "lzw.tif": (source(40, 24), {"compression": "tiff_lzw"}),
    "deflate-grey.tif": (source(40, 24).convert("L"), {"compression": "tiff_adobe_deflate"}),
    "grey16.tif": (Image.frombytes("I;16", (3, 1), bytes([7, 0, 255, 0, 0, 9])), {}),
    "alpha.tif": (source(40, 24).convert("RGBA"), {}),
    "422.jpg": (source(41, 23), {"quality": 90, "subsampling": 1}),
    "444.jpg": (source(41, 23), {"quality": 90, "subsampling": 0}),
}
rotated = Image.Exif()
rotated[0x0112] = 6
kinds["orientation.jpg"] = (source(40, 24), {"quality": 90, "exif": rotated})
for name, (image, options) in kinds.items():
    image.save(HERE / name, **options)
    Image.open(HERE / name).convert("RGB").save(HERE / f"{name}.expected.png")
