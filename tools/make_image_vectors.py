#!/usr/bin/env python3
"""Makes tests/vectors/images: small files of every kind that ward reads, and what Pillow and transformers make of them.

Needs Pillow 13 (earlier ones resize in another order), numpy, transformers, and cjpeg (libjpeg-turbo) for the kinds of
JPEG that Pillow does not write. Writes three tables beside the files, one line for each check:

  decode.txt     FILE WIDTH HEIGHT CRC32-OF-RGB [warning]   transformers' load_image, except 16-bit grayscale
  resize.txt     SEED IN_WIDTH IN_HEIGHT OUT_WIDTH OUT_HEIGHT CRC32-OF-RGB   of the noise that noise() defines
  normalize.txt  RESCALE MEAN*3 STD*3 CRC32-OF-FLOATS       of the 16 x 16 image whose three channels count 0..255
"""
import io
import pathlib
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL
from PIL import Image
from transformers.image_transforms import normalize, rescale
from transformers.image_utils import load_image

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/vectors/images"
XMP = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
       '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>')


def noise(seed, height, width):
    """The bytes that the C test makes the same way: a multiplicative hash of the index."""
    v = (np.arange(height * width * 3, dtype=np.uint32) + np.uint32(seed * 7919)) * np.uint32(2654435761)
    v = (v ^ v >> np.uint32(15)) * np.uint32(2246822519)
    return (v >> np.uint32(24)).astype(np.uint8).reshape(height, width, 3)


def scene(width, height):
    """A picture with smooth areas, edges and colours, so that every step of a decoder matters."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x + y) * 13 % 256], -1)
    rgb[(x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 4) ** 2] = (230, 40, 90)
    return rgb.astype(np.uint8)


def exif(orientation, order=">"):
    """A TIFF structure that holds nothing else."""
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_rows(samples, depth):
    """[rows][samples of a row] to the bytes of PNG rows, filter 0."""
    out = b""
    for row in samples:
        if depth == 16:
            packed = row.astype(">u2").tobytes()
        elif depth == 8:
            packed = row.astype(np.uint8).tobytes()
        else:
            bits = ((row[:, None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(-1)
            packed = np.packbits(bits.astype(np.uint8)).tobytes()
        out += b"\0" + packed
    return out


def png(pixels, depth, kind, before=b"", after=b"", interlace=False):
    """pixels [height][width][channels] of the numbers as stored; kind: PNG's colour type."""
    height, width, channels = pixels.shape
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for x, y, step_x, step_y in passes:
        part = pixels[y::step_y, x::step_x]
        if part.size:
            data += pack_rows(part.reshape(part.shape[0], -1), depth)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(data, 9)) + after +
            chunk(b"IEND", b""))


def png_files():
    rng = np.random.default_rng(3)
    rgb = scene(37, 23).astype(np.int64)
    gray = rgb[..., :1]
    alpha = rng.integers(0, 256, gray.shape)
    for interlace in (False, True):
        tail = "-interlaced.png" if interlace else ".png"
        for depth in (1, 2, 4, 8):
            yield f"gray{depth}" + tail, png(gray >> (8 - depth), depth, 0, interlace=interlace)
            palette = rng.integers(0, 256, 3 * 2**depth).astype(np.uint8).tobytes()
            plte = chunk(b"PLTE", palette)
            yield f"palette{depth}" + tail, png(gray >> (8 - depth), depth, 3, plte, interlace=interlace)
        yield "gray-alpha8" + tail, png(np.concatenate([gray, alpha], -1), 8, 4, interlace=interlace)
        yield "rgb8" + tail, png(rgb, 8, 2, interlace=interlace)
        yield "rgba8" + tail, png(np.concatenate([rgb, alpha], -1), 8, 6, interlace=interlace)
        yield "rgb16" + tail, png(rgb * 257 - rgb // 3, 16, 2, interlace=interlace)
        yield "rgba16" + tail, png(np.concatenate([rgb, alpha], -1) * 251, 16, 6, interlace=interlace)
    palette = rng.integers(0, 256, 3 * 200).astype(np.uint8).tobytes()
    plte = chunk(b"PLTE", palette)
    indices = gray * 199 // 255
    yield "palette-alphas.png", png(indices, 8, 3, plte + chunk(b"tRNS", bytes(range(0, 200, 2))))
    yield "palette-transparent.png", png(indices, 8, 3, plte + chunk(b"tRNS", b"\xff\0"))
    yield "gray8-transparent.png", png(gray, 8, 0, chunk(b"tRNS", b"\0\x20"))
    yield "rgb8-transparent.png", png(rgb, 8, 2, chunk(b"tRNS", b"\0\xe6\0\x28\0\x5a"))
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"profile"))
    yield "gamma.png", png(rgb, 8, 2, chunk(b"gAMA", struct.pack(">I", 100000)) + profile)
    yield "profile-bomb.png", png(rgb, 8, 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1000000), 9)))
    frame = struct.pack(">IIIIHHBB", 37, 23, 0, 0, 1, 10, 0, 0)
    animated = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", struct.pack(">I", 0) + frame)
    second = chunk(b"fcTL", struct.pack(">I", 1) + frame)
    second += chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(pack_rows(255 - rgb.reshape(23, -1), 8)))
    yield "animated.png", png(rgb, 8, 2, animated, second)
    yield "trailing.png", png(rgb, 8, 2) + b"trailing bytes"
    yield "one-pixel.png", png(rgb[:1, :1], 8, 2)
    for orientation in range(1, 9):
        yield f"exif{orientation}.png", png(rgb, 8, 2, chunk(b"eXIf", exif(orientation, "<>"[orientation % 2])))
    yield "exif-after.png", png(rgb, 8, 2, after=chunk(b"eXIf", exif(6)))
    profile = b"\nexif\n      26\n" + (b"Exif\0\0" + exif(8)).hex().encode() + b"\n"
    yield "exif-raw-profile.png", png(rgb, 8, 2, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)))
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode())
    yield "xmp.png", png(rgb, 8, 2, after=xmp)
    yield "exif-before-xmp.png", png(rgb, 8, 2, chunk(b"eXIf", exif(3)) + xmp)
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP.encode()))
    yield "xmp-compressed.png", png(rgb, 8, 2, xmp)


def deep_files():
    """16-bit grayscale: name, file, expected gray values, whether ward warns. Here ward leaves Pillow."""
    ramp = (np.arange(37 * 23).reshape(23, 37, 1) * 4096 // (37 * 23)).astype(np.int64)  # 12 bits
    alpha = np.full_like(ramp, 65535)
    twelve = chunk(b"sBIT", b"\x0c")
    scaled = lambda v, white: ((v * 510 + white) // (2 * white)).astype(np.uint8)  # round(v * 255 / white), halves up
    top = int(ramp.max())
    yield "gray16.png", png(ramp * 9, 16, 0), scaled(ramp, top), True
    yield "gray16-interlaced.png", png(ramp, 16, 0, interlace=True), scaled(ramp, top), True
    yield "gray16-black.png", png(ramp * 0, 16, 0), np.zeros_like(ramp, np.uint8), True
    yield "gray16-sbit12-low.png", png(ramp, 16, 0, twelve), scaled(ramp, 4095), False
    yield "gray16-sbit12-high.png", png(ramp << 4, 16, 0, twelve), scaled(ramp, 4095), False
    yield "gray16-sbit12-dark.png", png((ramp // 100) << 4, 16, 0, twelve), scaled(ramp // 100, 4095), False
    yield "gray16-sbit16.png", png(ramp * 7, 16, 0, chunk(b"sBIT", b"\x10")), scaled(ramp * 7, 65535), False
    yield "gray16-alpha.png", png(np.concatenate([ramp, alpha], -1), 16, 4), scaled(ramp, top), True


def jpeg(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def cjpeg(image, *options):
    ppm = io.BytesIO()
    image.save(ppm, "PPM")
    return subprocess.run(["cjpeg", *options], input=ppm.getvalue(), stdout=subprocess.PIPE, check=True).stdout


def segment(marker, data):
    return struct.pack(">BBH", 0xff, marker, len(data) + 2) + data


def jpeg_files():
    image = Image.fromarray(scene(61, 45))
    gray = image.convert("L")
    for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"ycc{name}.jpg", jpeg(image, quality=80, subsampling=sampling)
    yield "ycc420-progressive.jpg", jpeg(image, quality=60, progressive=True)
    yield "ycc420-restart.jpg", jpeg(image, quality=75, restart_marker_blocks=2)
    yield "ycc440.jpg", cjpeg(image, "-quality", "80", "-sample", "1x2")
    yield "ycc411.jpg", cjpeg(image, "-quality", "80", "-sample", "4x1")
    yield "arithmetic.jpg", cjpeg(image, "-quality", "80", "-arithmetic")
    yield "low-quality.jpg", jpeg(image, quality=5)
    yield "rgb.jpg", jpeg(image, quality=80, keep_rgb=True)
    yield "gray.jpg", jpeg(gray, quality=80)
    yield "gray-progressive.jpg", jpeg(gray, quality=80, progressive=True)
    cmyk = np.dstack([scene(61, 45), scene(61, 45)[::-1, :, 0] // 2])
    cmyk_file = jpeg(Image.fromarray(cmyk, "CMYK"), quality=90)
    yield "cmyk.jpg", cmyk_file
    at = cmyk_file.index(b"Adobe") + 11
    yield "ycck.jpg", cmyk_file[:at] + b"\2" + cmyk_file[at + 1:]
    at -= 15
    yield "cmyk-unmarked.jpg", cmyk_file[:at] + cmyk_file[at + 16:]
    plain = jpeg(image, quality=80)
    for orientation in range(1, 9):
        app1 = segment(0xe1, b"Exif\0\0" + exif(orientation, "<>"[orientation % 2]))
        yield f"exif{orientation}.jpg", plain[:2] + app1 + plain[2:]
    app1 = segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0" + XMP.encode())
    yield "xmp.jpg", plain[:2] + app1 + plain[2:]
    silent = segment(0xe1, b"Exif\0\0" + exif(1).replace(b"\1\x12", b"\1\x13"))
    yield "exif-silent-xmp.jpg", plain[:2] + silent + app1 + plain[2:]
    whole = b"Exif\0\0" + exif(6)
    yield "exif-split.jpg", plain[:2] + segment(0xe1, whole[:20]) + segment(0xe1, b"Exif\0\0" + whole[20:]) + plain[2:]
    yield "trailing.jpg", plain + b"trailing bytes"
    yield "one-pixel.jpg", jpeg(image.crop((0, 0, 1, 1)))


def resize_sizes():
    fixed = [(1, 1, 896, 896), (1, 700, 896, 896), (700, 1, 896, 896), (896, 896, 896, 896), (896, 300, 896, 896),
             (300, 896, 896, 896), (896, 1000, 896, 896), (1000, 896, 896, 896), (1, 1, 1, 1), (3, 2, 1, 1),
             (20000, 1, 5, 5), (1, 20000, 5, 5), (1, 5000, 1, 7), (5000, 1, 7, 1), (512, 512, 896, 896),
             (1100, 1500, 896, 896)]
    # Around the edge where the vertical pass comes first: the height loses more than twice what the width does.
    fixed += [(100, 149, 60, 70), (100, 150, 60, 70), (100, 151, 60, 70), (60, 71, 60, 70), (59, 71, 60, 70),
              (61, 72, 60, 70), (61, 73, 60, 70), (50, 71, 60, 70), (50, 70, 60, 70), (50, 69, 60, 70)]
    rng = random.Random(5)
    for i in range(200):
        top = rng.choice((20, 100, 400))
        size = rng.choice(((896, 896), (224, 224), (56, 56), (56, 56), (rng.randint(1, 150), rng.randint(1, 150))))
        if size == (896, 896) and i % 3:
            size = (112, 112)
        fixed.append((rng.randint(1, top), rng.randint(1, top), *size))
    return fixed


def main():
    if int(PIL.__version__.split(".")[0]) < 13:
        sys.exit(f"Pillow 13 is needed: {PIL.__version__} resizes in another order")
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, data in [*png_files(), *jpeg_files()]:
        (FOLDER / name).write_bytes(data)
        rgb = np.asarray(load_image(str(FOLDER / name)))
        lines.append(f"{name} {rgb.shape[1]} {rgb.shape[0]} {zlib.crc32(rgb.tobytes()):08x}")
    for name, data, gray, warns in deep_files():
        (FOLDER / name).write_bytes(data)
        rgb = np.repeat(gray, 3, axis=2)
        lines.append(f"{name} {rgb.shape[1]} {rgb.shape[0]} {zlib.crc32(rgb.tobytes()):08x}" + " warning" * warns)
    (FOLDER / "decode.txt").write_text("\n".join(lines) + "\n")

    lines = []
    for seed, (width, height, out_width, out_height) in enumerate(resize_sizes()):
        image = Image.fromarray(noise(seed, height, width)).resize((out_width, out_height), Image.Resampling.BILINEAR)
        lines.append(f"{seed} {width} {height} {out_width} {out_height} {zlib.crc32(image.tobytes()):08x}")
    (FOLDER / "resize.txt").write_text("\n".join(lines) + "\n")

    lines = []
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), 3, axis=0)
    for factor, mean, std in ((1 / 255, (0.5,) * 3, (0.5,) * 3),
                              (0.00392156862745098, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                              (1 / 127.5, (1.0, 0.5, 0.0), (1.0, 2.0, 3.0))):
        values = normalize(rescale(ramp, factor), mean, std).astype("<f4")
        numbers = " ".join(repr(float(v)) for v in (factor, *mean, *std))
        lines.append(f"{numbers} {zlib.crc32(values.tobytes()):08x}")
    (FOLDER / "normalize.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
