"""``manifest.json``: written last, it vouches for every file of a data folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vnprep.config import Stage
from vnprep.durable import canonical_json, readable_json, sha256_text, write_text
from vnprep.errors import ShardError, TokenizerError
from vnprep.shards.ledger import Ledger
from vnprep.tokenizer.special import SpecialIds

FORMAT = "vnprep-shards"
FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file beside the manifest: its name, size in bytes and SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardRecord:
    """One shard, made from one work unit.

    Attributes:
        file: the Arrow file.
        rows: examples in it.
        tokens: positions over all rows (the length of the flat ``input`` column).
        supervised_tokens: positions that carry loss.
        longest_row: positions of its longest row.
        rejects: the file of what was left out, or None if nothing was.
        ledger: what became of the unit's records.
    """

    file: FileRecord
    rows: int
    tokens: int
    supervised_tokens: int
    longest_row: int
    rejects: FileRecord | None
    ledger: Ledger

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "file": asdict(self.file),
            "rows": self.rows,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "longest_row": self.longest_row,
            "rejects": None if self.rejects is None else asdict(self.rejects),
            "ledger": self.ledger.to_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ShardRecord:
        """Read what ``to_json`` wrote."""
        rejects = value["rejects"]
        return cls(
            FileRecord(**value["file"]),
            value["rows"],
            value["tokens"],
            value["supervised_tokens"],
            value["longest_row"],
            None if rejects is None else FileRecord(**rejects),
            Ledger.from_json(value["ledger"]),
        )


@dataclass(frozen=True)
class Inputs:
    """The inputs of one run; their names and hashes stand in a file, for they may be a million.

    Attributes:
        file: the list (see ``vnprep.shards.inputs``).
        count: how many they are.
        bytes: of all of them.
    """

    file: FileRecord
    count: int
    bytes: int


@dataclass(frozen=True)
class TokenizerRecord:
    """The tokenizer that made the ids.

    Attributes:
        fingerprint: ``vnprep.tokenizer.load.fingerprint`` of it and its special ids.
        vocab_size: largest id + 1.
        special: ids of the special tokens.
        encoder: the program that applied it: ``gigatoken`` or ``tokenizers``; or both, parted by
            ``+``, where an append was done by another than what it was added to.
    """

    fingerprint: str
    vocab_size: int
    special: SpecialIds
    encoder: str


@dataclass(frozen=True)
class Manifest:
    """All that is known of a data folder.

    Attributes:
        stage: ``pretrain`` or ``finetune``.
        config: the settings that decide the bytes.
        inputs: what it was made from: one entry for the first run, and one for each append.
        tokenizer: what made the ids.
        tokenizer_file: the copy of ``tokenizer.json`` in the folder.
        shards: in order.
    """

    stage: Stage
    config: dict[str, Any]
    inputs: tuple[Inputs, ...]
    tokenizer: TokenizerRecord
    tokenizer_file: FileRecord
    shards: tuple[ShardRecord, ...]

    @property
    def rows(self) -> int:
        """Examples over all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Positions over all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def supervised_tokens(self) -> int:
        """Positions that carry loss, over all shards."""
        return sum(shard.supervised_tokens for shard in self.shards)

    @property
    def longest_row(self) -> int:
        """Positions of the longest row."""
        return max((shard.longest_row for shard in self.shards), default=0)

    @property
    def ledger(self) -> Ledger:
        """What became of every record read."""
        total = Ledger()
        for shard in self.shards:
            total.add(shard.ledger)
        return total

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file that the manifest vouches for."""
        shards = [shard.file for shard in self.shards]
        rejects = [shard.rejects for shard in self.shards if shard.rejects is not None]
        inputs = [part.file for part in self.inputs]
        return (self.tokenizer_file, *inputs, *shards, *rejects)

    def _body(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "stage": self.stage,
            "config": self.config,
            "inputs": [asdict(part) for part in self.inputs],
            "tokenizer": {
                "fingerprint": self.tokenizer.fingerprint,
                "vocab_size": self.tokenizer.vocab_size,
                "special_ids": self.tokenizer.special.as_dict(),
                "encoder": self.tokenizer.encoder,
                "file": asdict(self.tokenizer_file),
            },
            "totals": {
                "rows": self.rows,
                "tokens": self.tokens,
                "supervised_tokens": self.supervised_tokens,
                "longest_row": self.longest_row,
                "ledger": self.ledger.to_json(),
            },
            "shards": [shard.to_json() for shard in self.shards],
        }

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, with a hash over its own content."""
        body = self._body()
        body["manifest_sha256"] = sha256_text(canonical_json(body))
        write_text(folder / MANIFEST_NAME, readable_json(body))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check a folder's manifest.

        Raises:
            ShardError: it is missing, unreadable, altered, or of another format version.
        """
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise ShardError(
                "no manifest.json here, so this is no finished data set",
                place=folder,
                remedy="give the folder that a vnprep command wrote with --out; "
                "if that command was cut short, run it again and it will finish",
            )
        try:
            text = path.read_bytes().decode("utf-8")
            body = json.loads(text)
            _check_format(body, text, path)
            manifest = cls._from_body(body)
            if manifest._body() != body:
                raise ValueError("its totals are not those of its shards, or it says more")
            return manifest
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(
                f"the manifest cannot be read ({type(error).__name__}: {error})",
                place=path,
                remedy="prepare the data again",
            ) from None
        except TokenizerError as error:
            raise ShardError(error.cause, place=path, remedy="prepare the data again") from None

    @classmethod
    def _from_body(cls, body: dict[str, Any]) -> Manifest:
        tokenizer = body["tokenizer"]
        return cls(
            body["stage"],
            body["config"],
            tuple(
                Inputs(FileRecord(**part["file"]), part["count"], part["bytes"])
                for part in body["inputs"]
            ),
            TokenizerRecord(
                tokenizer["fingerprint"],
                tokenizer["vocab_size"],
                SpecialIds(**tokenizer["special_ids"]),
                tokenizer["encoder"],
            ),
            FileRecord(**tokenizer["file"]),
            tuple(ShardRecord.from_json(shard) for shard in body["shards"]),
        )


def _check_format(body: Any, text: str, path: Path) -> None:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ShardError("not a vnprep manifest", place=path, remedy="give a folder made by vnprep")
    if body.get("format_version") != FORMAT_VERSION:
        raise ShardError(
            f"format version {body.get('format_version')}; this vnprep reads {FORMAT_VERSION}",
            place=path,
            remedy="prepare the data again with this version",
        )
    layout = readable_json(body)  # so that a change of white space alone is found, too
    stated = body.pop("manifest_sha256", None)
    if text != layout or stated != sha256_text(canonical_json(body)):
        raise ShardError(
            "the manifest was changed after it was written (its own hash does not match)",
            place=path,
            remedy="restore it, or prepare the data again",
        )
