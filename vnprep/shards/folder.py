"""The names in a data folder, and which of them are vnprep's own."""

from __future__ import annotations

from vnprep.shards.manifest import MANIFEST_NAME, TOKENIZER_NAME

#: Inside a data folder while work goes on: everything that is not yet part of the data set.
WORK_FOLDER = ".work"
#: In the work folder: what two runs must have in common to write the same bytes.
IDENTITY_NAME = "identity.json"

_PREFIXES = ("shard-", "inputs-", "pack-")


def is_own(name: str) -> bool:
    """Tell whether vnprep writes files of this name into a data folder."""
    return name in (MANIFEST_NAME, TOKENIZER_NAME, WORK_FOLDER) or name.startswith(_PREFIXES)
