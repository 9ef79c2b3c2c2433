"""Writes settings of Python as the ``KEY=VALUE`` lines that the Rust library reads and checks."""

import json
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any


def lines(settings: Mapping[str, Any]) -> Iterator[str]:
    """``{"graph": {"neighbors": 50}}`` as ``graph.neighbors=50``; ``None`` leaves a setting at its default."""
    for section, value in settings.items():
        if section == "source" and not isinstance(value, Mapping):
            value = {"uri": value}
        if not isinstance(value, Mapping):
            yield f"{_key(section)}={_value(section, value)}"
            continue
        for key, setting in value.items():
            if setting is not None:
                name = f"{section}.{key}"
                yield f"{_key(section)}.{_key(key)}={_value(name, setting)}"


def section(settings: object, name: str) -> dict[str, Any]:
    """One section of a dict of settings, or of a pipeline file; empty if there is none."""
    if isinstance(settings, (str, os.PathLike)) and os.path.isfile(settings):
        with open(settings, "rb") as file:
            settings = tomllib.load(file)
    found = settings.get(name) if isinstance(settings, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _key(name: object) -> str:
    text = str(name)
    bare = text.isascii() and text.replace("_", "").replace("-", "").isalnum()
    return text if bare else _text(text)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(name: str, value: Any) -> str:
    """A TOML value. Numbers of numpy and torch have ``item``."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes, Mapping)):
        value = value.item()
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case os.PathLike():
            return _text(os.fsdecode(value))
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case list() | tuple():
            return f"[{', '.join(_value(name, item) for item in value)}]"
        case Mapping():
            return f"{{{', '.join(f'{_key(k)} = {_value(name, v)}' for k, v in value.items())}}}"
        case _:
            message = f"setting `{name}` is a {type(value).__name__}; give a text, a number, a list or a dict"
            raise TypeError(message)
