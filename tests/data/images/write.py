"""Writes images beside it as cameras, phones and the web make them: `python3 tests/data/images/write.py`.

Needs Pillow, numpy and pyarrow. All in `good.parquet` are 12 × 20 pixels when upright; `pixels` are those of Pillow's
`ImageOps.exif_transpose(image).convert("RGB")`. Those in `bad.parquet` are no images, or only parts of some.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

HERE = Path(__file__).parent
ORIENTATION = 0x0112
rng = np.random.default_rng(11)
height, width = 12, 20
y, x = np.mgrid[0:height, 0:width]
# No two corners alike, so that no turn looks like another.
pixels = np.stack([x * 12, y * 20, 255 - x * 6 - y * 4], -1).astype(np.uint8)
picture = Image.fromarray(pixels)

# How the picture lies in the file, for each orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def lying(orientation):
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture


def exif(orientation, endian="<"):
    data = Image.Exif()
    data.endian = endian
    data[ORIENTATION] = orientation
    return data.tobytes()


def xmp(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def jpeg(image=picture, **options):
    return encoded(image, "JPEG", **{"quality": 95, "subsampling": 0, **options})


def png(image=picture, **options):
    return encoded(image, "PNG", **options)


def webp(image=picture, **options):
    return encoded(image, "WEBP", **{"lossless": True, **options})


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(data, *segments):
    """A JPEG with these right behind its begin."""
    return data[:2] + b"".join(segments) + data[2:]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def chunks(data):
    at, found = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(parts):
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def raw_png(values, depth, color):
    """Of big-endian values [height, …], in the depth and kind of color that PNG numbers so."""
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def text_chunk(data):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", data.decode(), zip=False)
    return info


def exif_last(data):
    parts = chunks(data)
    moved = [part for part in parts if part[0] == b"eXIf"]
    return png_of([part for part in parts[:-1] if part not in moved] + moved + parts[-1:])


def with_exif_prefix(data):
    """A WebP whose EXIF begins as it does in JPEGs."""
    at = data.index(b"EXIF")
    (length,) = struct.unpack("<I", data[at + 4 : at + 8])
    content = b"Exif\0\0" + data[at + 8 : at + 8 + length]
    data = data[: at + 4] + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


film = b"\0\0\0\x18ftypmp42" + rng.integers(0, 256, 3000, np.uint8).tobytes() + b"\xff\xda\0\x0c" + b"\xff\xda" * 20
small = jpeg(picture.resize((4, 4)))
cmyk = jpeg(picture.convert("CMYK"))
adobe = cmyk.index(b"\xff\xee")
no_adobe = cmyk[:adobe] + cmyk[adobe + 2 + struct.unpack(">H", cmyk[adobe + 2 : adobe + 4])[0] :]
key = np.full((height, width, 1), 230, np.uint8)
ycck = bytearray(jpeg(Image.fromarray(255 - np.concatenate([np.asarray(picture.convert("YCbCr")), key], 2), "CMYK")))
ycck[ycck.index(b"Adobe") + 11] = 2
alpha = picture.convert("RGBA")
alpha.putalpha(Image.fromarray((x * 12).astype(np.uint8)))
palette = picture.quantize(16)
deep = (pixels.astype(np.uint16) * 257 + 3).astype(">u2")
gray = np.asarray(picture.convert("L"))
deep_gray = (gray.astype(np.uint16) * 257).astype(">u2")
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

good = {
    **{f"jpeg, orientation {o}": jpeg(lying(o), exif=exif(o)) for o in range(1, 9)},
    **{f"png, orientation {o}": png(lying(o), exif=exif(o)) for o in range(1, 9)},
    **{f"webp, orientation {o}": webp(lying(o), exif=exif(o)) for o in range(1, 9)},
    "jpeg, big-endian exif": jpeg(lying(6), exif=exif(6, ">")),
    "jpeg, orientation 0": jpeg(exif=exif(0)),
    "jpeg, orientation 9": jpeg(exif=exif(9)),
    "jpeg, exif cut short": with_segments(jpeg(), segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x05")),
    "jpeg, xmp": with_segments(jpeg(lying(8)), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(8))),
    "jpeg, exif before xmp": with_segments(
        jpeg(lying(3), exif=exif(3)), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(8))
    ),
    "png, exif behind the pixels": exif_last(png(lying(6), exif=exif(6))),
    "png, xmp": png(lying(5), pnginfo=text_chunk(xmp(5))),
    "webp, exif with a prefix": with_exif_prefix(webp(lying(7), exif=exif(7))),
    "webp, xmp": webp(lying(6), xmp=xmp(6)),
    "jpeg, three zeros behind": jpeg() + b"\0\0\0",
    "jpeg, a film behind": jpeg() + film,
    "jpeg, a film behind, turned": jpeg(lying(6), exif=exif(6)) + film,
    "jpeg, an image behind": jpeg() + small,
    "jpeg, half an image behind": jpeg() + small[:-20],
    "jpeg, progressive, a film behind": jpeg(progressive=True) + film,
    "jpeg, restarts": jpeg(restart_marker_blocks=1) + film,
    "jpeg, a thumbnail within": with_segments(jpeg(), segment(0xE2, small)),
    "jpeg, filled up before markers": jpeg().replace(b"\xff\xdb", b"\xff\xff\xff\xdb"),
    "jpeg, 4:2:0": jpeg(subsampling=2),
    "jpeg, 4:2:0, turned": jpeg(lying(5), subsampling=2, exif=exif(5)),
    "jpeg, gray": jpeg(picture.convert("L"), subsampling=-1),
    "jpeg, gray, turned": jpeg(lying(8).convert("L"), subsampling=-1, exif=exif(8)),
    "jpeg, cmyk": cmyk,
    "jpeg, cmyk without adobe": no_adobe,
    "jpeg, ycck": bytes(ycck),
    "jpeg, rgb": jpeg(keep_rgb=True),
    "jpeg, profile": jpeg(icc_profile=profile),
    "png, profile": png(icc_profile=profile),
    "png, palette": png(palette),
    "png, palette, one color clear": png(palette, transparency=0),
    "png, palette, colors half clear": png(palette, transparency=bytes(range(0, 256, 16))),
    "png, alpha": png(alpha),
    "png, gray, alpha": png(alpha.convert("LA")),
    "png, gray, one shade clear": png(picture.convert("L"), transparency=100),
    "png, one color clear": png(transparency=(0, 0, 255)),
    "png, one bit": png(picture.convert("1")),
    "png, 2 bits": png(picture.quantize(4), bits=2),
    "png, 16 bits": raw_png(deep.reshape(height, -1), 16, 2),
    "png, 16 bits, alpha": raw_png(np.concatenate([deep, deep[..., :1]], 2).reshape(height, -1), 16, 6),
    "png, 16 bits, gray, alpha": raw_png(np.stack([deep_gray, deep_gray], 2).reshape(height, -1), 16, 4),
    "png, animated": png(save_all=True, append_images=[ImageOps.invert(picture)]),
    "webp, animated": webp(save_all=True, append_images=[ImageOps.invert(picture)], duration=40),
    "webp, animated, alpha": webp(alpha, save_all=True, append_images=[picture], duration=40, exact=True),
    "webp, lossy, alpha": webp(alpha, lossless=False, quality=95, exact=True),
}


def decoded(name, data):
    with Image.open(io.BytesIO(data)) as image:
        if name == "jpeg, exif cut short":
            return np.asarray(image.convert("RGB"))
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


expected = {name: decoded(name, data) for name, data in good.items()}
# Pillow cuts 16 bits of gray off at 255 in place of scaling them.
good["png, 16 bits, gray"] = raw_png(deep_gray, 16, 0)
expected["png, 16 bits, gray"] = np.repeat(gray[..., None], 3, 2)
assert all(image.shape == (height, width, 3) for image in expected.values())
parquet.write_table(
    pa.table(
        {
            "name": list(good),
            "image": pa.array(list(good.values()), pa.binary()),
            "pixels": pa.array([image.ravel() for image in expected.values()], pa.list_(pa.uint8())),
        }
    ),
    HERE / "good.parquet",
    compression="zstd",
)

header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
huge_png = png_of([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100_000), 9)), (b"IEND", b"")])
huge_jpeg = bytearray(jpeg())
frame = huge_jpeg.index(b"\xff\xc0")
huge_jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
huge_progressive = bytearray(jpeg(progressive=True))
frame = huge_progressive.index(b"\xff\xc2")
huge_progressive[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
huge_webp = bytearray(webp(exif=exif(1)))
huge_webp[24:30] = struct.pack("<I", 60_000)[:3] * 2
whole, progressive, second = jpeg(), jpeg(progressive=True), png()
wrong_sum = bytearray(second)
wrong_sum[second.index(b"IDAT") + 10] ^= 255
CANNOT, SHORT = "is an image that cannot be decoded (", "is an image that cannot be decoded (it is cut short)"
FORMAT = ", but only JPEG, PNG and WebP images are read: convert it"
bad = {
    "jpeg, cut in half": (whole[: len(whole) // 2 + 100], SHORT),
    "jpeg, progressive, cut in half": (progressive[: len(progressive) // 2 + 50], SHORT),
    "jpeg without its end": (whole[:-2], SHORT),
    "jpeg, cut short, with a thumbnail": (with_segments(whole, segment(0xE2, small))[:-30], SHORT),
    "jpeg, cut within its header": (whole[:300], SHORT),
    "png, cut in half": (second[: len(second) // 2], CANNOT),
    "png, wrong checksum": (bytes(wrong_sum), CANNOT),
    "webp, cut in half": (webp()[: len(webp()) // 2], CANNOT),
    "gif": (encoded(picture, "GIF"), "holds GIF" + FORMAT),
    "bmp": (encoded(picture, "BMP"), "holds BMP" + FORMAT),
    "tiff": (encoded(picture, "TIFF"), "holds TIFF" + FORMAT),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", "is no JPEG, PNG or WebP image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no JPEG, PNG or WebP image"),
    "empty": (b"", "is no JPEG, PNG or WebP image, but empty"),
    "png, huge": (huge_png, CANNOT + "its 60000 × 60000 pixels take more than 512 MiB)"),
    "jpeg, huge": (bytes(huge_jpeg), CANNOT + "its 65000 × 65000 pixels take more than 512 MiB)"),
    "jpeg, progressive, huge": (bytes(huge_progressive), CANNOT + "its 65000 × 65000 pixels take more than 512 MiB)"),
    "webp, huge": (bytes(huge_webp), CANNOT + "its 60001 × 60001 pixels take more than 512 MiB)"),
}
parquet.write_table(
    pa.table(
        {
            "name": list(bad),
            "image": pa.array([data for data, _ in bad.values()], pa.binary()),
            "reason": [reason for _, reason in bad.values()],
        }
    ),
    HERE / "bad.parquet",
    compression="zstd",
)
