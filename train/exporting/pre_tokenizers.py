"""Which tokenizers llama.cpp can run, and by what name it knows their pre-tokenizer.

llama.cpp has no general regular expressions: each way of splitting text is written in its source
under a name, and a GGUF file says the name (``tokenizer.ggml.pre``). Its own converter finds the
name by a hash over the ids of a test text, which a newly trained vocabulary never matches; here it
is found by the pattern itself. Source: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnprep.errors import TrainingError

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_QWEN35 = (
    _ENGLISH + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
#: Pattern → llama.cpp's name. The first is that of ``vnprep tokenizer train``.
_NAMES = {
    _WORDS + r"|\p{N}" + _REST: "qwen2",
    _WORDS + r"|\p{N}{1,3}" + _REST: "llama-bpe",
    _QWEN35: "qwen35",
    _GPT2: "gpt-2",
}
#: Under these names llama.cpp takes a word that is a token whole, without looking at merges.
_IGNORE_MERGES = {"llama-bpe"}


def llama_cpp_name(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the pre-tokenizer of a ``tokenizer.json``.

    Raises:
        TrainingError: not a byte-level BPE, or one that llama.cpp would split otherwise.
    """
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _refused(f"its model is {model.get('type')}, not byte-level BPE")
    for option in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise _refused(f"its BPE has a {option}")
    normalizer = tokenizer.get("normalizer")
    if normalizer and normalizer.get("type") != "NFC":
        raise _refused(f"its normalizer is {normalizer.get('type')}, and llama.cpp applies none")
    pattern = _pattern(tokenizer.get("pre_tokenizer") or {})
    name = _NAMES.get(pattern)
    if name is None:
        raise _refused(f"llama.cpp does not know its way of splitting text: {pattern}")
    if bool(model.get("ignore_merges")) != (name in _IGNORE_MERGES):
        raise _refused(f"its ignore_merges is not what llama.cpp does under the name {name}")
    return name


def _pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    """Return the regular expression of a ByteLevel pre-tokenizer, or of Split and ByteLevel."""
    steps = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    *splits, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        raise _refused("its pre-tokenizer is not ByteLevel without a space before the text")
    if not splits and last.get("use_regex", True):
        return _GPT2
    fits = len(splits) == 1 and splits[0].get("type") == "Split" and not last.get("use_regex", True)
    if not fits or splits[0].get("behavior") != "Isolated" or splits[0].get("invert"):
        kinds = ", ".join(str(step.get("type")) for step in steps)
        raise _refused(f"llama.cpp does not know its way of splitting text: {kinds}")
    return str((splits[0].get("pattern") or {}).get("Regex", ""))


def _refused(cause: str) -> TrainingError:
    return TrainingError(
        f"llama.cpp cannot run this tokenizer: {cause}",
        remedy="train the model with a tokenizer of `vnprep tokenizer train`, or export to "
        "Hugging Face's form",
    )
