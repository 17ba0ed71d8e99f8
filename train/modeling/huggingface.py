"""A folder in Hugging Face's form: ``config.json``, safetensors, ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling.card import CARD_NAME, CONFIG_NAME, MODEL_FOLDER, TOKENIZER_NAME, WEIGHTS_NAME
from vnprep.durable import canonical_json, sha256_file, sha256_text
from vnprep.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

INDEX_NAME = "model.safetensors.index.json"
_TOKENIZER_CONFIG, _SPECIAL_TOKENS_MAP = "tokenizer_config.json", "special_tokens_map.json"
#: Made anew by the model; older files still carry it.
_BUFFERS = (".rotary_emb.inv_freq",)


def is_huggingface(folder: Path) -> bool:
    """Whether a folder holds a model in Hugging Face's form and none of a run of ours."""
    ours = any((place / CARD_NAME).is_file() for place in (folder, folder / MODEL_FOLDER))
    return not ours and (folder / CONFIG_NAME).is_file()


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights: one, or the shards that the index names.

    Raises:
        TrainingError: there are none, or one is missing.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    index = folder / INDEX_NAME
    if not index.is_file():
        raise TrainingError(
            f"no {WEIGHTS_NAME} and no {INDEX_NAME} here",
            place=folder,
            remedy="download the model's safetensors files; if it has pickles (*.bin) alone, load "
            "it in transformers and write it again with save_pretrained",
        )
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("it names no files of this folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"not an index of shards ({error})", place=index, remedy="download it again"
        ) from None
    files = [folder / str(name) for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise TrainingError(
            f"{len(missing)} of {len(files)} shards are missing: {', '.join(missing[:3])}",
            place=folder,
            remedy="download them",
        )
    return files


def weights_identity(folder: Path) -> str:
    """Return a SHA-256 over the content of all weights and of ``config.json``.

    Every byte is read: two models of one shape differ in nothing else.
    """
    files = [*weight_files(folder), folder / CONFIG_NAME]
    return sha256_text(canonical_json({file.name: sha256_file(file) for file in files}))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights, by the names in the files, in the precision that they are stored in.

    Raises:
        TrainingError: a file is missing, damaged, or holds no plain weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise TrainingError(
                f"cannot be read ({error})", place=file, remedy="download the file again"
            ) from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.element_size() == 1:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise TrainingError(
                f"{name} is stored as {kind}: a quantised model",
                place=folder,
                remedy="take the model in bf16, fp16 or fp32",
            )
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_BUFFERS)}


def tokenizer_text(folder: Path) -> str:
    """Return the text of ``tokenizer.json``.

    Raises:
        TrainingError: there is none.
    """
    path = folder / TOKENIZER_NAME
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise TrainingError(
            f"no {TOKENIZER_NAME} here" if missing else f"cannot be read ({error})",
            place=folder if missing else path,
            remedy="download it; of an older tokenizer, transformers makes one: "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if there is no such file.

    Raises:
        TrainingError: something else is there.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"cannot be read ({error})", place=path, remedy="download it again"
        ) from None
    return content


def stated_tokens(folder: Path, texts: dict[int, str]) -> dict[str, str]:
    """Find which tokens the folder's own files name for bos, eos, pad and sep.

    The tokenizer's files come first; ``config.json`` names ids, and of several ends the first.

    Args:
        folder: the model's.
        texts: of each token id.

    Returns:
        Token texts by role; roles may be missing, and two may name one token.
    """
    config = read_json(folder / CONFIG_NAME)
    sources = [read_json(folder / name) for name in (_TOKENIZER_CONFIG, _SPECIAL_TOKENS_MAP)]
    found: dict[str, str] = {}
    for role in ("bos", "eos", "pad", "sep"):
        for source in sources:
            token = source.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and token:
                found.setdefault(role, token)
        number = config.get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int) and number in texts:
            found.setdefault(role, texts[number])
    return found
