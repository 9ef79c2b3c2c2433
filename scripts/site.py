#!/usr/bin/env python3
"""Prepares the pages of the documentation site, and checks the site that MkDocs has made of them.

    site.py stage PAGES          # fills the folder PAGES with the pages of this repository
    site.py finish SITE [API]    # puts cargo's documentation, the folder API, into the folder SITE as api/
    site.py check SITE           # fails if a link or an asset of a page leads nowhere, or to another host

Pages have the paths that they have in the repository, so most links stay as they are. Files and folders that are no
pages, such as sources, get a page each: `src/walk/mod.rs` is shown by `src/walk/mod.rs.md`. What is done to the text
makes MkDocs's dialect of Markdown show what is meant: lists within lists need four columns, for example.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["*.md", "docs/*.md", "docs/tutorials/*.md", "data/*.md", "skills/*/*.md"]
ASSETS = ["docs/*.svg", "docs/evidence/*.svg", "docs/tutorials/*.svg", "llms.txt"]

#: Where links to the released documentation of the crate lead, and where its pages are in the site.
RELEASED, API = "https://docs.rs/prosampler/latest/", "api/"

#: Larger files are named in the page of their folder, and have none of their own.
LARGEST = 100_000

LANGUAGES = {"rs": "rust", "py": "python", "pyi": "python", "toml": "toml", "sh": "bash", "js": "js", "css": "css"}

#: The page that leads to cargo's pages, in HTML, since MkDocs knows nothing of these.
API_PAGE = f"""# API

- <a href="{API}prosampler/index.html">The Rust crate</a>, as `cargo doc` shows it.
- <a href="{API}prosampler/config/index.html">All settings</a>, with units, ranges and defaults. They have the same
  names in pipeline files, on the command line and in Python.

The Python package explains itself where it is used: `help(prosampler.Pipeline)`, and its adapters in
[python/prosampler](python/prosampler/index.md).
"""

LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def tracked(*patterns: str) -> list[str]:
    """The files of the repository, those not yet committed too."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def stage(pages: Path) -> None:
    shutil.rmtree(pages, ignore_errors=True)
    everything = tracked()
    shown: set[str] = set()
    for name in tracked(*(f":(glob){pattern}" for pattern in PAGES)):
        text = (ROOT / name).read_text(encoding="utf-8")
        write(pages / name, page(text, Path(name), shown))
    for name in tracked(*(f":(glob){pattern}" for pattern in ASSETS)):
        (pages / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, pages / name)
    shown.add("python/prosampler")
    for name in sorted(shown):
        if (ROOT / name).is_dir():
            for file in (file for file in everything if file.startswith(name + "/")):
                show(pages, file)
        else:
            show(pages, name)
    write(pages / "api.md", API_PAGE)
    for name in ("iframe-worker.js", "site.css"):
        write(pages / "assets" / name, (ROOT / "scripts" / name).read_text(encoding="utf-8"))
    for folder in folders(pages):
        write(pages / folder / "index.md", listing(pages, folder, everything))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def page(text: str, at: Path, shown: set[str]) -> str:
    """The text of a page of the repository for the site. Adds to `shown` what it links to that is no page."""
    lines: list[str] = []
    fence, is_rust = "", False
    for line in text.split("\n"):
        mark = re.match(r" *(`{3,}|~{3,})", line)
        if fence:
            if line.strip().startswith(fence):
                fence = ""
            elif is_rust and re.match(r"# |#$", line):
                # rustdoc hides these lines.
                continue
        elif mark:
            fence, is_rust = mark[1], line.strip().startswith("```rust")
            line = re.sub(r"(```\w+),\w+", r"\1", line)
        else:
            line = prose(line, at, shown)
        lines.append(line)
    return "\n".join(lines)


def prose(line: str, at: Path, shown: set[str]) -> str:
    """A line outside of fenced blocks."""
    if line.startswith("|"):
        # A pipe within a code span of a table.
        line = re.sub(r"`[^`]*`", lambda code: code[0].replace(r"\|", "|"), line)
    elif item := re.match(r"( +)([*-]|\d+\.) ", line):
        line = " " * (4 * -(-len(item[1]) // 4)) + line.lstrip()
    return LINK.sub(lambda link: link[1] + target(link[2], at, shown) + (link[3] or "") + link[4], line)


def target(link: str, at: Path, shown: set[str]) -> str:
    """Where a link of the page `at` leads in the site."""
    if urlsplit(link).scheme or link.endswith((".md", ".svg", "llms.txt")):
        return link
    name = os.path.normpath(at.parent / link)
    if not (ROOT / name).exists():
        raise SystemExit(f"{at} links to {link}, which does not exist")
    shown.add(name)
    return f"{link.rstrip('/')}/index.md" if (ROOT / name).is_dir() else f"{link}.md"


#: Pages that show files are no part of the search, which is about the guide.
UNSEARCHED = "---\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n\n"


def show(pages: Path, name: str) -> None:
    """Writes the page of a file."""
    path = ROOT / name
    if (pages / name).exists() or path.stat().st_size > LARGEST:
        return
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    language = LANGUAGES.get(path.suffix[1:], "text")
    body = f"{fence}{language}\n{text.rstrip()}\n{fence}\n"
    write(pages / f"{name}.md", f"{UNSEARCHED}# {name}\n\n{body}")


def folders(pages: Path) -> list[str]:
    """The folders that have pages of files, and those above them, but for those with a page of their own."""
    found: set[str] = set()
    for file in pages.rglob("*.*.md"):
        parents = file.relative_to(pages).parents
        found.update(str(parent) for parent in parents if str(parent) != ".")
    return sorted(folder for folder in found if not (pages / folder / "README.md").exists())


def listing(pages: Path, folder: str, everything: list[str]) -> str:
    """The page of a folder: what is in it."""
    inside = {name.removeprefix(folder + "/").split("/")[0] for name in everything if name.startswith(folder + "/")}
    lines = []
    for name in sorted(inside, key=lambda name: (not (ROOT / folder / name).is_dir(), name)):
        if (ROOT / folder / name).is_dir():
            has_page = any((pages / folder / name / file).exists() for file in ("index.md", "README.md"))
            has_page = has_page or f"{folder}/{name}" in folders(pages)
            readme = "README.md" if (pages / folder / name / "README.md").exists() else "index.md"
            lines.append(f"- [{name}/]({name}/{readme})" if has_page else f"- {name}/")
        elif (pages / folder / name).exists() and name.endswith(".md"):
            lines.append(f"- [{name}]({name})")
        else:
            lines.append(f"- [{name}]({name}.md)" if (pages / folder / f"{name}.md").exists() else f"- {name}")
    return f"{UNSEARCHED}# {folder}/\n\n" + "\n".join(lines) + "\n"


def finish(site: Path, api: Path | None) -> None:
    shutil.rmtree(site / API, ignore_errors=True)
    if api is not None and (api / "prosampler/index.html").exists():
        shutil.copytree(api, site / API)
    # Assistants read pages as they are: those that llms.txt names lie beside it, and beside what is made of them.
    for name in re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text(encoding="utf-8")):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, site / name)
    for file in guide(site):
        text = file.read_text(encoding="utf-8")
        up = "../" * (len(file.relative_to(site).parts) - 1)
        changed = text.replace(RELEASED, up + API)
        if changed != text:
            file.write_text(changed, encoding="utf-8")


def guide(site: Path) -> Iterator[Path]:
    """The pages of the guide, without those of the API."""
    for file in sorted(site.rglob("*.html")):
        # A server may show 404.html at any path, so its links begin at the root.
        if file.relative_to(site).parts[0] not in (API.rstrip("/"), "404.html"):
            yield file


class References(HTMLParser):
    """Collects the ids of a page, its links, and what it loads when it is opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        if "src" in values:
            self.loads.append(values["src"])
        if "href" in values:
            (self.links if tag == "a" else self.loads).append(values["href"])


def check(site: Path) -> None:
    pages = {file: References(file.read_text(encoding="utf-8")) for file in guide(site)}
    has_api = (site / API).exists()
    faults = []
    for file, page in pages.items():
        name = file.relative_to(site)
        faults += [f"{name} loads {link}" for link in page.loads if urlsplit(link).netloc]
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            to = Path(os.path.normpath(file.parent / unquote(parts.path))) if parts.path else file
            if to.relative_to(site).parts[:1] == ("api",) and not has_api:
                continue
            if to.is_dir():
                to /= "index.html"
            if not to.is_file():
                faults.append(f"{name} links to {link}, which is not there")
            elif to in pages and parts.fragment and unquote(parts.fragment) not in pages[to].ids:
                faults.append(f"{name} links to {link}, which has no such place")
    for style in site.glob("assets/**/*.css"):
        loaded = re.findall(r"url\(['\"]?(https?:[^)'\"]+)", style.read_text(encoding="utf-8"))
        faults += [f"{style.relative_to(site)} loads {link}" for link in loaded]
    if faults:
        raise SystemExit("\n".join(sorted(set(faults))))
    print(f"{len(pages)} pages, all links lead somewhere" + ("" if has_api else "; the API is not there"))


def main() -> None:
    match sys.argv[1:]:
        case ["stage", pages]:
            stage(Path(pages).resolve())
        case ["finish", site, *api]:
            finish(Path(site).resolve(), Path(api[0]).resolve() if api else None)
        case ["check", site]:
            check(Path(site).resolve())
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
