"""The folder of a run: ``run.json`` says what run it is, so that no two share a folder.

OUT/run.json       the settings and the special tokens, written when the run begins
OUT/tokenizer.json the tokenizer: with it, any checkpoint is a model (see ``runmodel``)
OUT/metrics.jsonl  one line a step, and one for each evaluation
OUT/samples.jsonl  what the model makes of the prompts, while it trains
OUT/tensorboard/   the curves, for TensorBoard
OUT/checkpoints/   step-00000300/, …
OUT/loss.png       the curves, when the run ends or is stopped
OUT/model/         the trained weights, at the end
OUT/adapter/       under --lora, the adapter alone, at the end
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.card import TOKENIZER_NAME
from vnprep.durable import (
    TEMPORARY_SUFFIX,
    canonical_json,
    readable_json,
    sha256_text,
    write_text,
)
from vnprep.errors import OutputError
from vnprep.tokenizer.load import LoadedTokenizer

FORMAT = "vnprep-run"
RUN_NAME = "run.json"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The log of metrics."""
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """The log of what the model writes."""
        return self.path / "samples.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's files."""
        return self.path / "tensorboard"

    @property
    def plot(self) -> Path:
        """The picture of the loss curves."""
        return self.path / "loss.png"

    @property
    def model(self) -> Path:
        """The folder of the trained weights."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """The folder of LoRA's weights."""
        return self.path / "adapter"

    def check(self, settings: dict[str, Any], *, fresh: bool) -> None:
        """See that a run with these settings may use this folder; nothing is written.

        Args:
            settings: what decides the run's curve.
            fresh: whether the run must start from nothing (``--resume never``).

        Raises:
            OutputError: the folder holds another run, or something that is no run at all.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError("is a file", place=self.path, remedy="name another folder with --out")
        found = self.path.iterdir() if self.path.exists() else iter(())
        # What a killed run left half-written is nobody's.
        entries = [entry for entry in found if not entry.name.endswith(TEMPORARY_SUFFIX)]
        if not entries:
            return
        other = self.settings()
        if other is None:
            raise OutputError(
                f"holds other files ({', '.join(sorted(e.name for e in entries)[:3])}, …)",
                place=self.path,
                remedy="name a new folder with --out",
            )
        if fresh:
            raise OutputError(
                "holds a run already",
                place=self.path,
                remedy="name a new folder with --out, delete this one, or use --resume auto",
            )
        if changed := differences(other, settings):
            raise OutputError(
                f"holds a run with other settings: {'; '.join(changed)}",
                place=self.path,
                remedy="repeat the command with the settings of that run to continue it, "
                "or name a new folder with --out",
            )

    def claim(self, settings: dict[str, Any], tokenizer: LoadedTokenizer) -> None:
        """Write ``run.json`` and the tokenizer; ``check`` has passed."""
        backend, special = tokenizer.backend, tokenizer.special.as_dict()
        body = {
            "format": FORMAT,
            "fingerprint": fingerprint(settings),
            "settings": settings,
            "special_ids": special,
            "special_tokens": {role: str(backend.id_to_token(n)) for role, n in special.items()},
        }
        # The record comes first: a run that is killed here must find its folder its own.
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / RUN_NAME, readable_json(body))
        write_text(self.path / TOKENIZER_NAME, tokenizer.text)
        self.checkpoints.mkdir(exist_ok=True)

    def settings(self) -> dict[str, Any] | None:
        """Return the settings of the run that is here, or None if there is none."""
        body = self.record()
        settings = None if body is None else body.get("settings")
        return settings if isinstance(settings, dict) else None

    def record(self) -> dict[str, Any] | None:
        """Return all that ``run.json`` says, or None if there is no run here."""
        try:
            body = json.loads((self.path / RUN_NAME).read_bytes())
            return body if body["format"] == FORMAT else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def fingerprint(settings: dict[str, Any]) -> str:
    """Return the SHA-256 of a run's settings."""
    return sha256_text(canonical_json(settings))


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Name each setting that differs: ``lr: 0.001 there, 0.0005 here``."""
    changed = []
    for name in sorted(ours.keys() | theirs.keys()):
        there, here = ours.get(name), theirs.get(name)
        if there != here:
            changed.append(f"{name}: {_short(there)} there, {_short(here)} here")
    return changed


def _short(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
