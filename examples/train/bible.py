"""Makes `data/bible/pairs.parquet`: the verses of two English Bibles, side by side.

One row a verse that both have, in the order of the Protestant canon:

    verse     string   unique, `Gen.1.1`: OSIS book, chapter, verse
    book      string   OSIS book, one of 66
    anchor    string   the King James Version (text of 1769)
    positive  string   the World English Bible, 2015 edition

Both are in the public domain. The inputs are SWORD modules, which Debian packages:

    apt-get download sword-text-kjv sword-text-web
    for package in sword-text-*.deb; do dpkg -x "$package" sword; done
    python examples/train/bible.py --data sword/usr/share/sword

Takes a few seconds. Headings, notes, speakers and the numbers of Strong's lexicon are left out. Verses are paired by
their number alone: where the two count differently (the end of Romans, say), they are no pair, or a wrong one.
"""

import html
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from common import DATA, arguments, write_parquet

BOOKS = """Gen Exod Lev Num Deut Josh Judg Ruth 1Sam 2Sam 1Kgs 2Kgs 1Chr 2Chr Ezra Neh Esth Job Ps Prov Eccl
Song Isa Jer Lam Ezek Dan Hos Joel Amos Obad Jonah Mic Nah Hab Zeph Hag Zech Mal Matt Mark Luke John Acts Rom
1Cor 2Cor Gal Eph Phil Col 1Thess 2Thess 1Tim 2Tim Titus Phlm Heb Jas 1Pet 2Pet 1John 2John 3John Jude Rev""".split()  # noqa: SIM905

DROPPED = re.compile(r"<(note|title|speaker)\b[^>]*>.*?</\1>", re.DOTALL)
CHAPTER = re.compile(r'<chapter [^>]*osisID="(\w+\.\d+)" sID=')


def entries(module: Path, testament: str) -> Iterator[str]:
    """A testament's entries in the module's order: headings of book and chapter, and verses, some of them empty."""
    verses, blocks, texts = ((module / f"{testament}.{suffix}").read_bytes() for suffix in ("bzv", "bzs", "bzz"))
    books = [
        zlib.decompress(texts[start : start + size]) if size else b""
        for start, size, _ in struct.iter_unpack("<III", blocks)
    ]
    for book, start, size in struct.iter_unpack("<IIH", verses):
        yield books[book][start : start + size].decode() if size else ""


def plain(osis: str) -> str:
    """The words of a verse, without markup."""
    text = re.sub(r"<(l|lb|lg|div)\b[^>]*>", " ", DROPPED.sub(" ", osis))
    text = html.unescape(re.sub(r"<[^>]+>", "", text)).replace("¶", " ")
    return re.sub(r"\s+([,.;:?!’”])", r"\1", " ".join(text.split()))


def read(module: Path) -> dict[str, str]:
    """The verses that are not empty, by `book.chapter.verse`."""
    verses = {}
    for testament in ("ot", "nt"):
        chapter, number = None, 0
        for entry in entries(module, testament):
            if headings := CHAPTER.findall(entry):
                chapter, number = headings[-1], 0
                continue
            number += 1
            if chapter and (text := plain(entry)):
                verses[f"{chapter}.{number}"] = text
    return verses


def main() -> None:
    args = arguments(__doc__, data=Path("sword/usr/share/sword"), out=DATA / "bible/pairs.parquet")
    kjv, web = (read(args.data / "modules/texts/ztext" / name) for name in ("engKJV2006eb", "engWEB2015eb"))
    rows = [
        {"verse": verse, "book": verse.split(".")[0], "anchor": kjv[verse], "positive": web[verse]}
        for verse in kjv
        if verse in web and verse.split(".")[0] in BOOKS
    ]
    rows.sort(key=lambda row: BOOKS.index(row["book"]))  # stable: chapters and verses stay in order
    schema = pa.schema([(name, pa.string()) for name in ("verse", "book", "anchor", "positive")])
    write_parquet(pa.Table.from_pylist(rows, schema), args.out, dictionary=["book"])


if __name__ == "__main__":
    main()
