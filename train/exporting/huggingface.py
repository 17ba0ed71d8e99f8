"""A folder that ``from_pretrained`` loads, without code of this project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from exporting.precision import exported_weights
from exporting.tokenizer_files import exported_tokenizer, generation_config, tokenizer_config
from inference.chat_template import chat_template
from modeling.card import CONFIG_NAME, TOKENIZER_NAME, WEIGHTS_NAME
from modeling.weights import LoadedModel, write_config, write_tensors
from vnprep.durable import readable_json, write_text
from vnprep.errors import OutputError

INDEX_NAME = "model.safetensors.index.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
GENERATION_CONFIG_NAME = "generation_config.json"
TEMPLATE_NAME = "chat_template.jinja"
GB = 10**9

_FILES = {
    CONFIG_NAME,
    WEIGHTS_NAME,
    INDEX_NAME,
    TOKENIZER_NAME,
    TOKENIZER_CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    TEMPLATE_NAME,
}
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def export(
    loaded: LoadedModel,
    out: Path,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = 5 * GB,
) -> list[str]:
    """Write the files; ``config.json``, without which nothing loads, comes last.

    Args:
        loaded: the model.
        out: the folder, made if need be; an earlier export in it is replaced.
        dtype: of the weights.
        max_shard_bytes: weights beyond this are split over several files.

    Returns:
        The files' names.

    Raises:
        OutputError: the folder holds files that are no export.
    """
    check_folder(out)
    tokenizer = loaded.tokenizer()
    config, tensors = exported_weights(loaded, tokenizer.vocab_size, dtype)
    template = chat_template(tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG_NAME).unlink(missing_ok=True)
    for path in out.iterdir():
        if _holds_weights(path.name):
            path.unlink()
    weights = _write_weights(out, tensors, max_shard_bytes)
    texts = {
        TOKENIZER_NAME: exported_tokenizer(tokenizer),
        TEMPLATE_NAME: template,
        TOKENIZER_CONFIG_NAME: readable_json(tokenizer_config(loaded, config, template)),
        GENERATION_CONFIG_NAME: readable_json(generation_config(config)),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    write_config(out / CONFIG_NAME, config, tensors)
    return [CONFIG_NAME, *weights, *texts]


def check_folder(out: Path) -> None:
    """Refuse to write among files that are not an export's.

    Raises:
        OutputError: there are some, or ``out`` is a file.
    """
    if out.exists() and not out.is_dir():
        raise OutputError("a file, not a folder", place=out, remedy="give a new folder with --out")
    if not out.is_dir():
        return
    names = (path.name for path in out.iterdir())
    foreign = sorted(name for name in names if not (name in _FILES or _SHARD.fullmatch(name)))
    if foreign:
        raise OutputError(
            f"the folder holds other files ({', '.join(foreign[:3])})",
            place=out,
            remedy="give a new folder with --out",
        )


def _holds_weights(name: str) -> bool:
    return name in (WEIGHTS_NAME, INDEX_NAME) or _SHARD.fullmatch(name) is not None


def _write_weights(out: Path, tensors: Mapping[str, Tensor], max_bytes: int) -> list[str]:
    """Write one file, or several and the index that says which tensor is where."""
    shards = _shards(tensors, max_bytes)
    if len(shards) == 1:
        write_tensors(out / WEIGHTS_NAME, tensors)
        return [WEIGHTS_NAME]
    names = [
        f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    where: dict[str, str] = {}
    for file, shard in zip(names, shards, strict=True):
        write_tensors(out / file, shard)
        where |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_text(out / INDEX_NAME, readable_json(index))
    return [*names, INDEX_NAME]


def _shards(tensors: Mapping[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    """Fill file after file; a tensor larger than a file has one to itself."""
    shards: list[dict[str, Tensor]] = [{}]
    held = 0
    for name, tensor in tensors.items():
        if shards[-1] and held + tensor.nbytes > max_bytes:
            shards.append({})
            held = 0
        shards[-1][name] = tensor
        held += tensor.nbytes
    return shards
