"""What a trial is."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

Settings = dict[str, dict[str, Any]]
"""Settings of a pipeline by section, as in a pipeline file."""


@dataclass(frozen=True)
class Trial:
    """One training run, told by all that decides its result."""

    modality: str
    data: str
    """The data set, one of its modality's."""
    arm: str
    """What the tables call the sampler; `settings` are what it is."""
    settings: Settings = field(default_factory=dict)
    seed: int = 0
    """Of initial weights, views and mini-batches: trials with the same seed are paired."""
    batch: int = 32
    steps: int = 1500
    rows: int = 16_000
    """Training samples; at most all that the data set has."""
    lr: float = 2e-3
    temperature: float = 0.05
    loss: str = "info_nce"
    encoder: str = "transformer"
    """For text, `transformer` or `bag`: two layers, or a mean of words, which takes a tenth of the time."""
    embed_steps: int = 0
    """Embed all samples again so often, in steps; 0: their vectors are those pushed after each step."""
    carry: bool = False
    """Whether vectors that no step has pushed since the last graph are mapped to the present model before the next."""
    test: bool = False
    """Whether the test split is scored, too: for final tables alone."""

    def with_settings(self, arm: str, **sections: dict[str, Any]) -> "Trial":
        """The same trial with other settings on top of its own, under another name."""
        merged = {name: dict(values) for name, values in self.settings.items()}
        for name, values in sections.items():
            merged[name] = {**merged.get(name, {}), **values}
        return replace(self, arm=arm, settings=merged)

    @property
    def key(self) -> str:
        """Equal for trials with the same result; what an arm is called does not matter."""
        told = {name: value for name, value in asdict(self).items() if name not in ("arm", "test")}
        return json.dumps(told, sort_keys=True)
