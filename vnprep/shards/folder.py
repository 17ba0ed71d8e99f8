"""The names in a data folder, and which of them are vnprep's own."""

from __future__ import annotations

import re

from vnprep.shards.manifest import MANIFEST_NAME, TOKENIZER_NAME

#: Inside a data folder while work goes on: everything that is not yet part of the data set.
WORK_FOLDER = ".work"
#: In the work folder: what two runs must have in common to write the same bytes.
IDENTITY_NAME = "identity.json"

#: In the work folder: large compressed inputs, unpacked.
UNPACKED_FOLDER = "unpacked"

_OWN = re.compile(
    r"(shard-\d{5,}\.(arrow|rejects\.jsonl)|inputs-\d{5,}\.jsonl|pack-\d+\.(arrow|json)"
    rf"|{re.escape(MANIFEST_NAME)}|{re.escape(TOKENIZER_NAME)})(\.\d+\.tmp)?"
    rf"|{re.escape(WORK_FOLDER)}"
)


def is_own(name: str) -> bool:
    """Tell whether vnprep writes files of this name into a data folder, whole or not yet."""
    return _OWN.fullmatch(name) is not None
