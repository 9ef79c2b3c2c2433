"""Makes `glyphs.parquet`: letters and digits in fonts of Debian packages. The file is no part of the repository.

    apt-get download PACKAGE...                              # those below
    for package in fonts-*.deb; do dpkg -x "$package" fonts; done
    python examples/train/glyphs.py --fonts fonts/usr/share/fonts --out evidence-data/image/glyphs.parquet

One row a glyph:

    id      string   font and code point, `DejaVuSans U+0041`
    image   binary   PNG, 32 × 32, grey, light on dark
    code    int32    the code point
    letter  string   the class: the lowest code point of those that most fonts draw alike (A, Α and А), as a character
    font    string   the font's file name without its ending
    split   string   `train`, `dev` or `test`, by font; no family of fonts is in two of them

Code points are letters and digits that three in four of the training fonts have. A glyph stands on a common base
line, its ink in the middle. Glyphs that a font lacks, that are blank or do not fit are left out, and code points that
Unicode holds equal to another one.

| packages | licence of the fonts |
|---|---|
| fonts-dejavu-core, fonts-dejavu-extra | Bitstream Vera |
| fonts-liberation2, fonts-noto-core, fonts-linuxlibertine, fonts-crosextra-carlito, fonts-cmu, fonts-stix | OFL 1.1 |
| fonts-mononoki, fonts-cantarell, fonts-play, fonts-ebgaramond, fonts-inter, fonts-vollkorn, fonts-firacode | OFL 1.1 |
| fonts-sil-gentiumplus, fonts-sil-charis, fonts-sil-andika | OFL 1.1 |
| fonts-roboto-unhinted, fonts-jetbrains-mono | Apache 2.0 |
| fonts-freefont-ttf | GPL 3 with the font exception |
| fonts-tuffy | public domain |

Takes 20 seconds.
"""

import io
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from common import arguments, write_parquet

SIDE, SIZE, BASE = 32, 20, 23
KINDS = {"Lu", "Ll", "Lt", "Lo", "Nd", "Nl", "No"}
"""General categories of the code points that are drawn: letters that are no modifiers, and numbers."""

FONTS = {
    "train": """DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSerif DejaVuSerif-Bold DejaVuSerif-Italic
        DejaVuSansMono LiberationSans-Regular LiberationSans-Bold LiberationSans-Italic LiberationSerif-Regular
        LiberationSerif-Bold LiberationSerif-Italic LiberationMono-Regular LiberationMono-Bold FreeSans FreeSansBold
        FreeSansOblique FreeSerif FreeSerifBold FreeSerifItalic FreeMono FreeMonoBold NotoSans-Regular NotoSans-Bold
        NotoSans-Italic NotoSerif-Regular NotoSerif-Bold NotoSerif-Italic LinLibertine_R LinLibertine_RB
        LinLibertine_RI LinBiolinum_R LinBiolinum_RB LinBiolinum_RI Carlito-Regular Carlito-Bold Carlito-Italic
        GentiumPlus-Regular GentiumPlus-Bold GentiumPlus-Italic CharisSIL-Regular CharisSIL-Bold CharisSIL-Italic
        Andika-Regular Andika-Bold Tuffy Tuffy_Bold Tuffy_Italic cmunrm cmunbx cmunti cmunss cmunsx STIX-Regular
        STIX-Bold STIX-Italic Play-Regular Play-Bold Cantarell-Regular Cantarell-Bold mononoki-Regular mononoki-Bold""",
    "dev": """Roboto-Regular Roboto-Bold Roboto-Italic EBGaramond12-Regular EBGaramond12-Italic JetBrainsMono-Regular
        JetBrainsMono-Bold""",
    "test": "Inter-Regular Inter-Bold Inter-Italic Vollkorn-Regular Vollkorn-Bold Vollkorn-Italic FiraCode-Regular",
}
SPLITS = {font: split for split, fonts in FONTS.items() for font in fonts.split()}

Glyphs = dict[int, np.ndarray]
"""Images `[SIDE, SIDE]` by code point."""


def draw(font: ImageFont.FreeTypeFont, text: str) -> np.ndarray | None:
    """The text on the base line, if it fits."""
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    if right - left > SIDE or BASE + top < 0 or BASE + bottom > SIDE:
        return None
    image = Image.new("L", (SIDE, SIDE))
    place = ((SIDE - right - left) // 2, BASE)
    ImageDraw.Draw(image).text(place, text, fill=255, font=font, anchor="ls")
    return np.asarray(image)


def is_drawn(code: int) -> bool:
    """Whether it is a letter or digit of the Basic Multilingual Plane, and what Unicode normalizes it to."""
    text = chr(code)
    return code <= 0xFFFF and unicodedata.category(text) in KINDS and unicodedata.is_normalized("NFC", text)


def glyphs(path: Path) -> Glyphs:
    """What the font draws."""
    font = ImageFont.truetype(path, SIZE, layout_engine=ImageFont.Layout.BASIC)
    with TTFont(path, lazy=True) as file:
        names = file.getBestCmap()
    drawn = {}
    for code, name in names.items():
        image = draw(font, chr(code)) if name != ".notdef" and is_drawn(code) else None
        if image is not None and image.any():
            drawn[code] = image
    return drawn


def classes(fonts: list[Glyphs]) -> dict[int, int]:
    """The class of each code point that three in four of the fonts have: the lowest of those that most draw alike."""
    counts = Counter(code for font in fonts for code in font)
    of = {code: code for code, count in sorted(counts.items()) if count >= len(fonts) * 3 / 4}
    alike: Counter[tuple[int, int]] = Counter()
    for font in fonts:
        by_image = defaultdict(list)
        for code in of:
            if code in font:
                by_image[font[code].tobytes()].append(code)
        alike.update(pair for codes in by_image.values() for pair in combinations(codes, 2))
    for (a, b), count in alike.items():
        both = sum(a in font and b in font for font in fonts)
        if count > both / 2:
            low, high = sorted((of[a], of[b]))
            of = {code: low if known == high else known for code, known in of.items()}
    return of


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def rows(fonts: dict[str, Glyphs], letter: dict[int, int]) -> Iterator[dict]:
    for name, split in SPLITS.items():
        for code in sorted(fonts[name].keys() & letter.keys()):
            yield {
                "id": f"{name} U+{code:04X}",
                "image": png(fonts[name][code]),
                "code": code,
                "letter": chr(letter[code]),
                "font": name,
                "split": split,
            }


def main() -> None:
    args = arguments(__doc__, fonts=Path("fonts/usr/share/fonts"), out=Path("glyphs.parquet"))
    files = {path.stem: path for path in sorted(args.fonts.rglob("*.[ot]tf"))}
    fonts = {name: glyphs(files[name]) for name in SPLITS}
    letter = classes([fonts[name] for name, split in SPLITS.items() if split == "train"])
    print(f"{len(fonts)} fonts, {len(letter)} code points, {len(set(letter.values()))} classes")
    types = {"id": pa.string(), "image": pa.binary(), "code": pa.int32()}
    schema = pa.schema([*types.items(), *((name, pa.string()) for name in ("letter", "font", "split"))])
    write_parquet(
        pa.Table.from_pylist(list(rows(fonts, letter)), schema), args.out, ["code", "letter", "font", "split"]
    )


if __name__ == "__main__":
    main()
