"""What a run may do with an output folder: begin, go on, or nothing since all is done.

Everything else is refused, with the fingerprints of what is there and of what is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vnprep.config import MEBIBYTE, PrepareConfig
from vnprep.durable import canonical_json, sha256_text, write_text
from vnprep.errors import OutputError, ShardError
from vnprep.run.commit import clear
from vnprep.shards.folder import IDENTITY_NAME, UNPACKED_FOLDER, WORK_FOLDER
from vnprep.shards.inputs import inputs_name, inputs_sha256, read_inputs
from vnprep.shards.manifest import MANIFEST_NAME, FileRecord, Inputs, Manifest
from vnprep.shards.read import file_problem
from vnprep.sources.plan import Plan
from vnprep.tokenizer.load import LoadedTokenizer

Identity = dict[str, Any]

_NAMED = 3


def identity(
    plan: Plan, config: PrepareConfig, tokenizer: LoadedTokenizer, base: Manifest | None
) -> Identity:
    """Return what two runs must have in common to write the same bytes.

    Args:
        plan: the run's inputs.
        config: its settings.
        tokenizer: what makes the ids.
        base: the data set that the run adds to, or None.
    """
    before = [part.file.sha256 for part in base.inputs] if base else []
    return {
        "configuration": config.to_json(),
        "tokenizer": tokenizer.fingerprint,
        "input": [*before, inputs_sha256(plan.inputs)],
    }


def identity_of(manifest: Manifest) -> Identity:
    """Return the identity of the run, or runs, that made a data set."""
    return {
        "configuration": manifest.config,
        "tokenizer": manifest.tokenizer.fingerprint,
        "input": [part.file.sha256 for part in manifest.inputs],
    }


def finished(out: Path, wanted: Identity, plan: Plan) -> Manifest:
    """Return the manifest of the data set in ``out`` if the wanted run is what made it.

    Raises:
        OutputError: it was made otherwise, or is damaged.
    """
    manifest = Manifest.read(out)
    refuse_other(identity_of(manifest), wanted, out, "a finished data set")
    _refuse_other_inputs(
        identity_of(manifest), wanted, out, "a finished data set", (out, manifest.inputs), plan
    )
    if any(file_problem(out, record, "full") for record in manifest.files):
        raise OutputError(
            "a data set stands here, but its files are damaged",
            place=out,
            remedy="vnprep verify names them; pass --overwrite to prepare it again",
        )
    return manifest


def is_begun(out: Path, wanted: Identity, plan: Plan, overwrite: bool) -> bool:
    """Tell whether the wanted run was begun in ``out`` and not finished.

    Raises:
        OutputError: another run was, and ``overwrite`` is not set.
    """
    work = out / WORK_FOLDER
    if not (work / IDENTITY_NAME).exists():
        return False
    started = _read_identity(work / IDENTITY_NAME)
    if started != wanted and not overwrite:
        what = "an unfinished run"
        refuse_other(started, wanted, out, what)
        part = len(started["input"]) - 1
        there = Inputs(FileRecord(inputs_name(part), 0, ""), 0, 0)
        _refuse_other_inputs(started, wanted, out, what, (work, (there,)), plan)
    return started == wanted


def begin(out: Path, wanted: Identity, plan: Plan, overwrite: bool) -> None:
    """Make the work folder ready to begin the wanted run, or to go on with it.

    Raises:
        OutputError: see ``is_begun``.
    """
    work = out / WORK_FOLDER
    if not is_begun(out, wanted, plan, overwrite):
        clear(work, keep=UNPACKED_FOLDER)
        write_text(work / IDENTITY_NAME, canonical_json(wanted))


def _read_identity(path: Path) -> Identity:
    try:
        started: Identity = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return started


def refuse_other(there: Identity, wanted: Identity, out: Path, what: str) -> None:
    """Refuse another configuration or tokenizer."""
    differing = [part for part in ("configuration", "tokenizer") if there.get(part) != wanted[part]]
    if not differing:
        return
    if there.get("input") != wanted["input"]:
        differing.append("input")
    changes = ""
    if "configuration" in differing:
        listed = _changes(_flat(there.get("configuration") or {}), _flat(wanted["configuration"]))
        changes = f" (settings: {', '.join(listed)})"
    raise _made_otherwise(there, wanted, out, what, differing, changes)


def _refuse_other_inputs(
    there: Identity,
    wanted: Identity,
    out: Path,
    what: str,
    listed: tuple[Path, tuple[Inputs, ...]],
    plan: Plan,
) -> None:
    if there.get("input") == wanted["input"]:
        return
    if there["input"][:1] == wanted["input"]:
        note = "the same inputs, and others that were added later with --append"
    else:
        try:
            note = _input_changes(list(read_inputs(*listed)), plan.inputs)
        except ShardError:
            note = "its list of inputs is not there any more"
    raise _made_otherwise(there, wanted, out, what, ["input"], f" ({note})")


def _made_otherwise(
    there: Identity, wanted: Identity, out: Path, what: str, differing: list[str], note: str
) -> OutputError:
    prints = "; ".join(
        f"{part} {_short(there.get(part))} there, {_short(wanted[part])} now" for part in differing
    )
    remedy = "choose another --out, or pass --overwrite to replace it"
    if differing == ["input"]:
        remedy += "; --append adds inputs to a finished data set"
    if (out / WORK_FOLDER / IDENTITY_NAME).exists() and (out / MANIFEST_NAME).exists():
        remedy += f"; remove {out / WORK_FOLDER} to give up what is unfinished there"
    return OutputError(
        f"{what}, made otherwise, stands here: {prints}{note}", place=out, remedy=remedy
    )


def _input_changes(there: list[FileRecord], now: tuple[FileRecord, ...]) -> str:
    """Say in words how two lists of inputs differ."""
    contents = [(record.bytes, record.sha256) for record in there]
    if contents == [(record.bytes, record.sha256) for record in now]:
        pairs = zip(there, now, strict=True)
        old, new = next(((a.name, b.name) for a, b in pairs if a.name != b.name), ("", ""))
        return f"the same contents under other names: {old} there, {new} now; names are recorded"
    before, after = ({r.name: r.sha256 for r in records} for records in (there, now))
    parts = {
        "changed": [n for n in after if n in before and before[n] != after[n]],
        "new": [n for n in after if n not in before],
        "gone": [n for n in before if n not in after],
    }
    told = "; ".join(f"{word}: {_some(names)}" for word, names in parts.items() if names)
    return told or "the same files in another order"


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _flat(config: Identity) -> Identity:
    read = config.get("read", {})
    return {**{name: value for name, value in config.items() if name != "read"}, **read}


def _changes(there: Identity, wanted: Identity) -> Iterator[str]:
    return (
        f"{_OPTIONS.get(name, name)} {_shown(name, there.get(name))} → {_shown(name, value)}"
        for name, value in wanted.items()
        if there.get(name) != value
    )


#: Settings whose option is called otherwise, or counts in MiB.
_OPTIONS = {
    "unit_bytes": "--unit-mb",
    "max_record_bytes": "--max-record-mb",
    "text_split": "--split",
    "max_len": "--max-len",
    "truncation": "--truncation",
    "eos_loss": "--eos-loss",
    "text_field": "--text-field",
    "request_field": "--request-field",
    "response_field": "--response-field",
    "messages_field": "--messages-field",
    "quoted_tsv": "--quoted-tsv",
    "delimiter": "--delimiter",
    "format": "--format",
}


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    return f"{value / MEBIBYTE:g}" if name.endswith("_bytes") else str(value)


def _short(value: Any) -> str:
    """Return the beginning of a fingerprint."""
    return sha256_text(canonical_json(value))[:12]
