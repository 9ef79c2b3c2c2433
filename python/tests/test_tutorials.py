"""The blocks of docs/tutorials and of the skill run as they are written, and what the pages show comes out."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import GLOSSES, MODEL, ROOT

PAGES = sorted((ROOT / "docs/tutorials").glob("*.md"))
SKILL = ROOT / "skills/prosampler/SKILL.md"

#: Seconds that the blocks of a page may take on a busy machine; on two idle cores it is about one minute at most.
LONGEST = 580


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def command() -> Path:
    """The command that the Python package installs, or else one that cargo has built."""
    places = [Path(sys.executable).parent, ROOT / "target/release", ROOT / "target/debug"]
    found = [place / "prosampler" for place in places if (place / "prosampler").is_file()]
    assert found, f"there is no prosampler in {', '.join(map(str, places))}; run cargo build"
    return found[0]


def run(script: str, folder: Path) -> str:
    """Runs lines of a shell in a folder, with the command and this Python at hand, as in an active environment."""
    path = [str(Path(sys.executable).parent), str(command().parent), os.environ["PATH"]]
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": os.pathsep.join(path), "VIRTUAL_ENV": sys.prefix, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=LONGEST)
    finally:
        # What the shell has started, too.
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output
    return output


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a reader has: the shipped data and pipeline files, in a folder that may be written to."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines")
    return tmp_path


def pattern(line: str) -> str:
    """What a shown line looks like with any numbers, bars and spaces, and with anything in place of `…`."""
    if line.startswith("  ") and not line.strip().startswith("random walk"):
        # A sample: which ones come together depends on the last bits of vectors.
        return re.escape(line.split()[0]) + ".*"
    line = re.escape(line.strip())
    line = re.sub(r"\d(?:\\?[\d.,])*", lambda _: r"\d[\d.,]*", line)
    for mark, general in (("[▁-█]+", "[▁-█]+"), (r"(?:\\ )+", r"\\s+"), ("…", ".*")):
        line = re.sub(mark, general, line)
    return line


def assert_shown(page: Path, output: str) -> None:
    """Every line that the page shows comes out, in this order."""
    rest = [line.strip() for line in output.splitlines()]
    for line in "\n".join(blocks(page, "text")).splitlines():
        if line.strip() in ("", "…"):
            continue
        wanted = re.compile(pattern(line))
        place = next((i for i, got in enumerate(rest) if wanted.fullmatch(got)), None)
        assert place is not None, f"{page.name} shows this line, which does not come out:\n{line}\n\n{output}"
        rest = rest[place + 1 :]


def number(output: str, beginning: str, name: str) -> float:
    """The number behind `name` in the first line that begins so and has one."""
    found = re.search(rf"^{re.escape(beginning)}.* {name} (\d+\.\d+)", output, re.MULTILINE)
    assert found, f"no {name} of {beginning} in:\n{output}"
    return float(found[1])


@pytest.mark.timeout(LONGEST + 10)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tutorial(page: Path, clone: Path) -> None:
    (clone / f"{page.stem}.py").write_text("\n\n".join(blocks(page, "python")))
    output = run("\n".join(blocks(page, "sh")), clone)
    print(output)
    assert_shown(page, output)
    CHECKS[page.stem](output)


def walks_are_harder(score: str | None, walk: str = "random_walk"):
    """A check: negatives of the walk are closer than a plain shuffle's, and training has raised the score.

    Without a score it is the first alone.
    """

    def check(output: str) -> None:
        assert number(output, walk, "similarity") > 1.2 * number(output, "uniform", "similarity")
        for arm in (walk, "uniform") if score else ():
            assert number(output, arm, score) > number(output, "untrained", score)

    return check


def hard_pairs_teach_longer(output: str) -> None:
    """The loss is still high where that of a plain shuffle is small, and both have taught something."""
    assert number(output, "hard negatives", "last loss") > 1.5 * number(output, "plain shuffle", "last loss")
    for arm in ("hard negatives", "plain shuffle"):
        assert number(output, arm, "found first") > number(output, "untrained", "found first")


def ranks_agree(output: str) -> None:
    # Before the first step, each text is embedded by one rank.
    start = output[: output.index("step   0")]
    assert sum(int(count) for count in re.findall(r"rank \d: .*\bhere=(\d+)", start)) == 14_159, output


CHECKS = {
    "text": walks_are_harder("found first"),
    "images": walks_are_harder("right class", "random walk"),
    "graphs": walks_are_harder(None),
    "pairs": hard_pairs_teach_longer,
    "many-gpus": ranks_agree,
}


@pytest.mark.timeout(LONGEST + 10)
def test_the_skill_runs(tmp_path: Path) -> None:
    text = SKILL.read_text()
    head = re.match(r"---\nname: prosampler\ndescription: (.+?)\n---\n", text, re.DOTALL)
    assert head and len(head[1]) <= 1024 and len(text.splitlines()) < 150
    glosses = pq.read_table(GLOSSES, columns=["label", "definition"]).slice(0, 3000)
    pq.write_table(glosses.rename_columns(["label", "text"]), tmp_path / "rows.parquet")
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((MODEL.parent / name).read_bytes())
    lines = [line for block in blocks(SKILL, "sh") for line in block.splitlines()]
    assert [line.split()[1] for line in lines] == ["init", "doctor", "tune", "run", "report"]
    output = {line.split()[1]: run(line, tmp_path) for line in lines}
    assert output["doctor"].splitlines()[-1] == "ready"
    assert "a plain shuffle" in output["tune"]
    for beginning in ("time to the first mini-batch", "wait for each of the others", "mean in-batch similarity"):
        assert beginning in text and beginning in output["run"]
    assert "pairs that share `label`" in output["run"]
    assert "</html>" in (tmp_path / "report.html").read_text()
    (tmp_path / "loop.py").write_text("\n".join(blocks(SKILL, "python")))
    run("python loop.py", tmp_path)


def test_the_modules_and_names_that_the_skill_mentions_exist() -> None:
    for module, name in re.findall(r"`prosampler\.(\w+)\.(\w+)[`(]", SKILL.read_text()):
        source = (ROOT / f"python/prosampler/{module}.py").read_text()
        assert re.search(rf"^(class|def) {name}\b", source, re.MULTILINE), f"{module}.{name}"


def test_the_links_of_llms_txt_exist() -> None:
    text = (ROOT / "llms.txt").read_text()
    assert text.startswith("# prosampler\n\n> ")
    entries = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(entries) > 15
    for entry in entries:
        link = re.fullmatch(r"- \[[^]]+\]\(([^)]+)\): .+\.", entry)
        assert link and (ROOT / link[1]).is_file(), entry
