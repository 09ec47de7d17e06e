"""Writes the Pillow reference values that the tests of tallow-input compare with.

    python3 -m venv venv && venv/bin/pip install pillow==12.3.0 numpy
    venv/bin/python runtime/input/tests/make_fixtures.py

Pillow is pinned because 13.0 resizes rows before columns where that is cheaper, which changes some pixels by one level;
earlier versions, behind which published networks were trained, always resize columns first.

Every image is generated here from fixed numbers, so nothing needs to be downloaded. `resize.json` holds source
images (PNG, base64; null means the one before) and Pillow's resized RGB bytes, of the whole image and of a region; `decode.json` holds files and the RGB bytes Pillow reads
from them. Centre crops follow torchvision/transforms/functional.py, which only moves pixels.
"""

import base64
import io
import json
import os

import numpy as np
import PIL
from PIL import Image, ImageOps

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
FILTERS = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


def text(data):
    return base64.b64encode(data).decode("ascii")


def scene(width, height, seed):
    """Gradients, hard edges and noise: what a resize filter can get wrong."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x * 3 + y * 5) % 256], axis=-1)
    pixels = pixels + rng.integers(-20, 21, pixels.shape)
    pixels[(x // 4 + y // 4) % 5 == 0] = (255, 0, 255)
    pixels[:, width // 2] = 0
    return np.clip(pixels, 0, 255).astype(np.uint8)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def resize_cases():
    sizes = [((37, 23), (16, 10)), ((16, 12), (23, 25)), ((24, 18), (25, 17)), ((12, 40), (30, 8)), ((31, 31), (7, 7)),
             ((5, 4), (13, 16)), ((48, 40), (3, 2)), ((8, 8), (1, 1)), ((1, 1), (4, 3))]
    cases = []
    for seed, (source, target) in enumerate(sizes):
        image = Image.fromarray(scene(*source, seed))
        left, top = source[0] // 4, source[1] // 3
        right, bottom = source[0] - left, source[1]
        for name, filter in FILTERS.items():
            cut = image.crop((left, top, right, bottom)).resize(target, filter)
            cases.append({"source": text(saved(image, "PNG")) if name == "nearest" else None, "interpolation": name,
                          "width": target[0], "height": target[1], "rgb": text(image.resize(target, filter).tobytes()),
                          "region": [left, top, right - left, bottom - top], "region_rgb": text(cut.tobytes())})
    return cases


def center_crop(image, width, height):
    """torchvision.transforms.functional.center_crop for PIL images."""
    w, h = image.size
    if width > w or height > h:
        left = (width - w) // 2 if width > w else 0
        top = (height - h) // 2 if height > h else 0
        right = (width - w + 1) // 2 if width > w else 0
        bottom = (height - h + 1) // 2 if height > h else 0
        image = ImageOps.expand(image, border=(left, top, right, bottom), fill=0)
        w, h = image.size
        if (w, h) == (width, height):
            return image
    top = int(round((h - height) / 2.0))
    left = int(round((w - width) / 2.0))
    return image.crop((left, top, left + width, top + height))


def preprocess_cases():
    """Resize(short side), CenterCrop, ToTensor, Normalize."""
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    cases = []
    for seed, (source, size, short, name) in enumerate([
        ((40, 29), 12, 12, "bilinear"), ((37, 50), 13, 15, "bicubic"), ((29, 33), 14, 16, "bilinear"),
        ((17, 64), 8, 9, "nearest"), ((10, 10), 10, 10, "bicubic"), ((8, 13), 14, 17, "bilinear"),
        ((30, 22), 17, 12, "bicubic"), ((9, 31), 12, 9, "bilinear"),
    ]):
        image = Image.fromarray(scene(*source, 100 + seed))
        w, h = image.size
        short_side, long_side = (w, h) if w <= h else (h, w)
        new_long = int(short * long_side / short_side)
        new = (short, new_long) if w <= h else (new_long, short)
        cropped = center_crop(image.resize(new, FILTERS[name]), size, size)
        values = (np.asarray(cropped).astype(np.float32) / np.float32(255) - mean) / std
        planes = np.ascontiguousarray(values.transpose(2, 0, 1)).astype("<f4")
        cases.append({"source": text(saved(image, "PNG")), "size": size, "short": short, "interpolation": name,
                      "rgb": text(cropped.tobytes()), "chw": text(planes.tobytes())})
    return cases


def without_segment(data, marker):
    """A JPEG file without its segments of one marker."""
    out, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != marker:
            out += data[at : at + length]
        at += length
    return bytes(out + data[at:])


def as_ycck(data):
    """A CMYK JPEG's Adobe marker changed to say YCCK, so that decoders apply that transform."""
    at = data.index(b"Adobe")
    out = bytearray(data)
    out[at + 11] = 2
    return bytes(out)


def decode_cases():
    rgb = Image.fromarray(scene(21, 14, 7))
    smooth = Image.fromarray(scene(21, 14, 7)).resize((40, 26), Image.BICUBIC).resize((21, 14), Image.BOX)
    rng = np.random.default_rng(3)
    alpha = Image.fromarray(rng.integers(0, 256, (14, 21), dtype=np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    cmyk = smooth.convert("CMYK")
    wide = rng.integers(0, 65536, (9, 11), dtype=np.uint16)
    palette = rgb.quantize(16)
    see_through = palette.copy()
    see_through.info["transparency"] = 3

    files = {
        "rgb.png": saved(rgb, "PNG"),
        "rgba.png": saved(rgba, "PNG"),
        "grey.png": saved(rgb.convert("L"), "PNG"),
        "grey_alpha.png": saved(rgba.convert("LA"), "PNG"),
        "one_bit.png": saved(rgb.convert("1"), "PNG"),
        "palette.png": saved(palette, "PNG"),
        "palette_transparent.png": saved(see_through, "PNG", transparency=3),
        "exif_6.png": saved(rgb, "PNG", exif=exif(6)),
        "rgb.bmp": saved(rgb, "BMP"),
        "grey.bmp": saved(rgb.convert("L"), "BMP"),
        "palette.bmp": saved(palette, "BMP"),
        "lossless.webp": saved(rgb, "WEBP", lossless=True),
        "rgba.webp": saved(rgba, "WEBP", lossless=True, exact=True),
        "animated.webp": saved(rgb, "WEBP", lossless=True, save_all=True,
                               append_images=[rgb.transpose(Image.FLIP_LEFT_RIGHT)], duration=50),
        "444.jpg": saved(smooth, "JPEG", quality=95, subsampling=0),
        "420.jpg": saved(smooth, "JPEG", quality=95, subsampling=2),
        "progressive.jpg": saved(smooth, "JPEG", quality=95, subsampling=0, progressive=True),
        "grey.jpg": saved(smooth.convert("L"), "JPEG", quality=95),
        "restarts.jpg": saved(smooth, "JPEG", quality=95, subsampling=0, restart_marker_blocks=1),
        "cmyk_adobe.jpg": saved(cmyk, "JPEG", quality=95, subsampling=0),
        "ycck_adobe.jpg": as_ycck(saved(cmyk, "JPEG", quality=95, subsampling=0)),
        "cmyk_plain.jpg": without_segment(saved(cmyk, "JPEG", quality=95, subsampling=0), 0xEE),
    }
    for orientation in range(1, 9):
        files[f"exif_{orientation}.jpg"] = saved(smooth, "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    files["exif_8.webp"] = saved(rgb, "WEBP", lossless=True, exif=exif(8))

    cases = []
    for name, data in files.items():
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        cases.append({"name": name, "file": text(data), "width": image.width, "height": image.height,
                      "rgb": text(image.tobytes())})
    # Pillow clips 16-bit grey at 255, which is no picture: the high byte is the reference there.
    grey16 = np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    cases.append({"name": "grey16.png", "file": text(saved(Image.fromarray(wide), "PNG")), "width": 11, "height": 9,
                  "rgb": text(grey16.tobytes())})
    data = rgb16_png(rng.integers(0, 65536, (6, 5, 3), dtype=np.uint16))
    image = Image.open(io.BytesIO(data)).convert("RGB")
    cases.append({"name": "rgb16.png", "file": text(data), "width": 5, "height": 6, "rgb": text(image.tobytes())})
    return cases


def rgb16_png(pixels):
    """Pillow cannot write 16-bit RGB."""
    import struct
    import zlib

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def write(name, cases):
    with open(os.path.join(HERE, name), "w") as file:
        file.write(json.dumps({"pillow": PIL.__version__, "cases": cases}, indent=0) + "\n")


os.makedirs(HERE, exist_ok=True)
write("resize.json", resize_cases())
write("preprocess.json", preprocess_cases())
write("decode.json", decode_cases())
