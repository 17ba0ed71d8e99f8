"""The other side: what Megatron-LM's fast path does at best.

gigatoken reads the file itself, on all cores, and the ids and the document index are written
plainly: no targets, no masks, no origins, no check of the text, no hash, no fsync, no resume.

Usage: gigatoken_files.py INPUT.jsonl TOKENIZER OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import gigatoken
import numpy as np

source, tokenizer_path, out = sys.argv[1:]
tokenizer = gigatoken.Tokenizer(tokenizer_path)
encoded = tokenizer.encode_files(gigatoken.JsonlFileSource([source])).layout
Path(out).mkdir(parents=True, exist_ok=True)
np.asarray(encoded.content.data).astype(np.uint16).tofile(Path(out) / "ids.bin")
np.asarray(encoded.offsets.data).tofile(Path(out) / "ids.idx")
