"""Who may write into an output folder: a new run, a rerun of the same, and nobody else."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vnprep.config import PrepareConfig
from vnprep.durable import canonical_json, sha256_text, write_text
from vnprep.errors import OutputError
from vnprep.packfile import PREFIX, remove_packs
from vnprep.shards.manifest import FORMAT, MANIFEST_NAME, TOKENIZER_NAME, Manifest
from vnprep.shards.read import file_problem
from vnprep.sources.plan import Plan
from vnprep.tokenizer.load import LoadedTokenizer

#: Inside the output folder while work goes on: the plan's identity, and a record a finished unit.
WORK_FOLDER = ".work"
_IDENTITY = "identity.json"

Identity = dict[str, Any]


def identity(plan: Plan, config: PrepareConfig, tokenizer: LoadedTokenizer) -> Identity:
    """Return what two runs must have in common to write the same bytes."""
    return {
        "configuration": config.to_json(),
        "tokenizer": tokenizer.fingerprint,
        "input": [asdict(record) for record in plan.inputs],
    }


def claim(out: Path, wanted: Identity, overwrite: bool) -> Manifest | None:
    """Make ``out`` ready for a run, or return the manifest if that run is finished already.

    Args:
        out: the folder; made if it is not there.
        wanted: the identity of the run.
        overwrite: remove a data set, finished or not, that stands in ``out``.

    Raises:
        OutputError: it holds something else.
    """
    work = out / WORK_FOLDER
    out.mkdir(parents=True, exist_ok=True)
    if overwrite and ((out / MANIFEST_NAME).exists() or (work / _IDENTITY).exists()):
        _refuse_foreign(out)
        _set_aside(out)
        out.mkdir(exist_ok=True)
    if (out / MANIFEST_NAME).exists():
        return _finished(out, wanted)
    if (work / _IDENTITY).exists():
        started = json.loads((work / _IDENTITY).read_text(encoding="utf-8"))
        _refuse_other(started, wanted, out, "an unfinished data set")
        return None
    if foreign := sorted(path.name for path in out.iterdir() if path.name != WORK_FOLDER):
        raise OutputError(
            f"the folder holds other files ({', '.join(foreign[:3])}{', …' * (len(foreign) > 3)})",
            place=out,
            remedy="choose an empty or new folder with --out",
        )
    work.mkdir(exist_ok=True)
    write_text(work / _IDENTITY, canonical_json(wanted))
    return None


def _refuse_foreign(out: Path) -> None:
    """Refuse to replace a folder in which anything stands that vnprep did not write."""
    path = out / MANIFEST_NAME
    if path.exists() and f'"{FORMAT}"' not in path.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(
            "its manifest.json is not vnprep's", place=out, remedy="choose another --out"
        )
    known = {MANIFEST_NAME, TOKENIZER_NAME, WORK_FOLDER}
    foreign = [
        path.name
        for path in sorted(out.iterdir())
        if path.name not in known and not path.name.startswith(("shard-", PREFIX))
    ]
    if foreign:
        raise OutputError(
            f"--overwrite would leave other files behind ({', '.join(foreign[:3])})",
            place=out,
            remedy="move them away, or choose another --out",
        )


def _aside(out: Path) -> Path:
    return out.with_name(f"{out.name}.replaced")


def _set_aside(out: Path) -> None:
    """Keep the data set that is to be replaced until its successor is whole."""
    if _aside(out).exists():
        clear(out)  # what stands here is a successor that was never finished
    else:
        out.rename(_aside(out))


def forget_replaced(out: Path) -> None:
    """Remove the data set that the one in ``out``, now whole, has replaced."""
    if _aside(out).exists():
        shutil.rmtree(_aside(out))


def give_up(out: Path) -> None:
    """Undo a run that has nothing worth resuming; a data set that it was to replace comes back."""
    clear(out)
    if _aside(out).exists() and not out.exists():
        _aside(out).rename(out)


def clear(out: Path) -> None:
    """Remove a data set, its manifest first, and nothing else; then the folder, if it is empty."""
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    remove_packs(out)
    for path in [*out.glob("shard-*.arrow*"), *out.glob("shard-*.rejects.jsonl*")]:
        path.unlink()
    (out / TOKENIZER_NAME).unlink(missing_ok=True)
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
    with contextlib.suppress(OSError):
        out.rmdir()


def _finished(out: Path, wanted: Identity) -> Manifest:
    manifest = Manifest.read(out)
    there = {
        "configuration": manifest.config,
        "tokenizer": manifest.tokenizer.fingerprint,
        "input": [asdict(record) for record in manifest.inputs],
    }
    _refuse_other(there, wanted, out, "a finished data set")
    if any(file_problem(out, record, "full") for record in manifest.files):
        raise OutputError(
            "a data set stands here, but its files are damaged",
            place=out,
            remedy="vnprep verify names them; pass --overwrite to prepare it again",
        )
    return manifest


def _refuse_other(there: Identity, wanted: Identity, out: Path, what: str) -> None:
    differing = [part for part in wanted if there.get(part) != wanted[part]]
    if not differing:
        return
    prints = "; ".join(
        f"{part} {_short(there.get(part))} there, {_short(wanted[part])} now" for part in differing
    )
    settings = ""
    if "configuration" in differing:
        changes = _changes(_flat(there.get("configuration") or {}), _flat(wanted["configuration"]))
        settings = f" (settings: {', '.join(changes)})"
    raise OutputError(
        f"{what}, made otherwise, stands here: {prints}{settings}",
        place=out,
        remedy="choose another --out, or pass --overwrite to replace it",
    )


def _flat(config: Identity) -> Identity:
    return {**{name: value for name, value in config.items() if name != "read"}, **config["read"]}


def _changes(there: Identity, wanted: Identity) -> list[str]:
    return [
        f"{name} {there.get(name)} → {value}"
        for name, value in wanted.items()
        if there.get(name) != value
    ]


def _short(value: Any) -> str:
    """Return the beginning of a fingerprint."""
    return sha256_text(canonical_json(value))[:12]
