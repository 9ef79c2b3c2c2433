"""Makes `data/wordnet/glosses.parquet` and `data/wordnet/LICENSE` from the files of WordNet 3.0.

One row a synset, in WordNet's own order (nouns, verbs, adjectives, adverbs; each by file offset):

    synset      string   part of speech + offset in its data file, unique: `noun00001740`
    label       string   the lexicographer class, one of 45: `noun.animal`, `verb.motion`, `adj.all`, …
    words       string   the synset's words, joined by ", " (no word holds a comma)
    definition  string   the gloss up to its first example
    examples    string   its example sentences, joined by " | " (no example holds that); null where there are none

The input is the folder of `data.noun`, `data.verb`, `data.adj` and `data.adv`, which Debian packages as `wordnet-base`:

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python examples/train/wordnet.py --data wordnet/usr/share/wordnet

Takes a few seconds. The notice at the head of `data.noun` is WordNet's licence; it becomes the LICENSE file as it is.
"""

import re
from pathlib import Path

import pyarrow as pa

from common import DATA, arguments, write_parquet

# The lexicographer files in the order of their numbers, from the manual page lexnames(5WN).
LABELS = """adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body
noun.cognition noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object
noun.person noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state
noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption
verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative
verb.weather adj.ppl""".split()  # noqa: SIM905

SCHEMA = pa.schema([(name, pa.string()) for name in ("synset", "label", "words", "definition", "examples")])
NOTICE = re.compile(r"^  \d+ ?")  # the licence stands at the head of each file, one numbered line after another
POSITION = re.compile(r"\((a|p|ip)\)$")  # where an adjective may stand: "galore(ip)"


def parse(line: str, part_of_speech: str) -> dict:
    """One line of a data file (see wndb(5WN)) as a row."""
    head, gloss = line.split(" | ", 1)
    offset, label, _, n_words, *rest = head.split(" ")
    words = [POSITION.sub("", word).replace("_", " ") for word in rest[: 2 * int(n_words, 16) : 2]]
    definition, *examples = re.split(r';\s*"', gloss.strip())
    examples = [example.strip().rstrip(";").strip().strip('"').strip() for example in examples]
    return {
        "synset": part_of_speech + offset,
        "label": LABELS[int(label)],
        "words": ", ".join(words),
        "definition": definition.strip().rstrip(";").strip(),
        "examples": " | ".join(examples) or None,
    }


def main() -> None:
    args = arguments(__doc__, data=Path("wordnet/usr/share/wordnet"), out=DATA / "wordnet")
    rows, notice = [], []
    for part_of_speech in ("noun", "verb", "adj", "adv"):
        lines = (args.data / f"data.{part_of_speech}").read_text(encoding="ascii").splitlines()
        rows += [parse(line, part_of_speech) for line in lines if not NOTICE.match(line)]
        notice = notice or [NOTICE.sub("", line).rstrip() for line in lines if NOTICE.match(line)]

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "LICENSE").write_text("\n".join(notice) + "\n")
    write_parquet(pa.Table.from_pylist(rows, SCHEMA), args.out / "glosses.parquet", dictionary=["label"])


if __name__ == "__main__":
    main()
