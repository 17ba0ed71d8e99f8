"""What the values of options may be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from trainer.schedule import Warmup

FOLDER = click.Path(path_type=Path)
POSITIVE = click.IntRange(min=1)
NATURAL = click.IntRange(min=0)
RATE = click.FloatRange(min=0, min_open=True)


class NamesType(click.ParamType[tuple[str, ...]]):
    name = "name,name,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = tuple(part.strip() for part in value.split(","))
        if not all(names):
            self.fail(f"{value!r} has an empty name; give names like q_proj,v_proj.", param, ctx)
        return names


class WarmupType(click.ParamType[Warmup]):
    name = "steps|share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Warmup:
        if isinstance(value, Warmup):
            return value
        try:
            return Warmup.parse(value)
        except ValueError as error:
            self.fail(f"{error}; give steps (100) or a share (0.05 or 5%).", param, ctx)


class MixType(click.ParamType[tuple[float, ...]]):
    name = "w,w,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            weights = tuple(float(part) for part in value.split(","))
        except ValueError:
            weights = ()
        if not weights or not all(0 < weight < math.inf for weight in weights):
            self.fail(f"{value!r} are no weights above 0, like 0.7,0.3.", param, ctx)
        return weights
