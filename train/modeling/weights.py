"""Write and read a trained model (see ``model_card`` for the folder)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from modeling.card import (
    CARD_NAME,
    CONFIG_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    ModelCard,
    model_folder,
    read_card,
)
from modeling.config import ModelConfig
from modeling.foreign import ForeignCausalLM, load_foreign, without_prefix
from modeling.foreign_config import ForeignConfig
from modeling.hf_names import from_hf, to_hf
from modeling.model import LlamaForCausalLM
from vnprep.config import Stage
from vnprep.durable import canonical_json, readable_json, replacing, sha256_file, write_text
from vnprep.errors import TrainingError
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.special import SpecialIds

__all__ = ["LoadedModel", "load_model", "model_folder", "read_card", "save_model"]

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_SHOWN = 3
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class LoadedModel:
    """A model from disk, on the CPU, with what is known of it."""

    model: LlamaForCausalLM | ForeignCausalLM
    card: ModelCard

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self.card.config

    @property
    def special(self) -> SpecialIds:
        """Ids of the special tokens."""
        return self.card.special

    @property
    def fingerprint(self) -> str:
        """The tokenizer's; what prepared data must carry too."""
        return self.card.fingerprint

    @property
    def stage(self) -> Stage:
        """What the model was trained on last."""
        return self.card.stage

    @property
    def tokenizer_path(self) -> Path:
        """The copy of the tokenizer that the model was trained with."""
        return self.card.folder / TOKENIZER_NAME

    def answering(self) -> LlamaForCausalLM:
        """Return the model, for generation.

        Raises:
            TrainingError: transformers implements it, and generates with it.
        """
        if isinstance(self.model, ForeignCausalLM):
            raise TrainingError(
                "a model of transformers (--model-impl hf), which is not asked from here",
                place=self.card.folder,
                remedy="export it (train/export.py) and let transformers generate with it",
            )
        return self.model

    def tokenizer(self) -> LoadedTokenizer:
        """Load the tokenizer; see ``ModelCard.tokenizer``."""
        return self.card.tokenizer()


def save_model(
    folder: Path,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    tokenizer_path: Path,
    special: SpecialIds,
    fingerprint: str,
    stage: Stage,
    untrained: Sequence[int] = (),
) -> None:
    """Write a model folder; it counts as a model only once it is whole.

    Args:
        folder: made if need be; a model already there is replaced.
        config: the model's shape.
        state_dict: weights under the model's names or Hugging Face's, on any device.
        tokenizer_path: the ``tokenizer.json`` to copy.
        special: ids of the special tokens.
        fingerprint: the tokenizer's.
        stage: what the model was trained on last.
        untrained: ids of tokens that were added and not trained yet.
    """
    tokenizer = tokenizer_path.read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_NAME).unlink(missing_ok=True)
    tensors = storable(state_dict, config)
    write_config(folder / CONFIG_NAME, config, tensors)
    write_text(folder / TOKENIZER_NAME, tokenizer)
    write_tensors(folder / WEIGHTS_NAME, tensors)
    backend = Tokenizer.from_str(tokenizer)
    ModelCard(
        folder,
        config,
        stage,
        special,
        {role: str(backend.id_to_token(number)) for role, number in special.as_dict().items()},
        fingerprint,
        {n: sha256_file(folder / n) for n in (CONFIG_NAME, TOKENIZER_NAME, WEIGHTS_NAME)},
        tuple(untrained),
    ).write()


def load_model(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """Load a trained model.

    Args:
        folder: a run folder, or the ``model`` folder in it.
        dtype: of the weights in memory.

    Raises:
        TrainingError: no finished model there, a changed file, or weights that do not fit.
    """
    card = read_card(folder)
    card.verify()
    path = card.folder / WEIGHTS_NAME
    if isinstance(card.config, ForeignConfig):
        return LoadedModel(load_foreign(card.folder, card.config, dtype), card)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(
            f"cannot be read ({error})", place=path, remedy="train the model again"
        ) from None
    return LoadedModel(assemble(card.config, tensors, path, dtype), card)


def assemble(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    place: Path,
    dtype: torch.dtype = torch.float32,
) -> LlamaForCausalLM:
    """Build a model of its weights.

    Args:
        config: the model's shape.
        tensors: weights under Hugging Face's names.
        place: where they come from, for messages.
        dtype: of the weights in memory.

    Raises:
        TrainingError: they do not fit ``config``.
    """
    # Without storage: the weights drawn for a fresh model would be thrown away at once.
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    _check_weights(tensors, storable(model.state_dict(), config), place)
    if config.tie_word_embeddings:
        tensors = tensors | {_HEAD: tensors[_EMBEDDING]}
    weights = {name: tensor.to(dtype) for name, tensor in from_hf(tensors).items()}
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    return model


def storable(state_dict: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return what a file holds: Hugging Face's names; a tied head is not stored twice."""
    if isinstance(config, ForeignConfig):
        state = without_prefix(dict(state_dict))
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return {
        name: tensor if tensor.is_meta else tensor.detach().cpu().contiguous()
        for name, tensor in to_hf(state_dict, config).items()
        if not (config.tie_word_embeddings and name == _HEAD)
    }


def write_config(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write ``config.json``, which states the weights' precision too."""
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    # transformers 5 and vLLM read "dtype"; transformers 4 and llama.cpp read "torch_dtype".
    write_text(path, readable_json(config.to_hf() | {"dtype": dtype, "torch_dtype": dtype}))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that is either whole or not there.

    By hand, tensor after tensor: the library's ``save_file`` leaves nothing to fsync, its ``save``
    holds the weights twice. Source of the format: https://huggingface.co/docs/safetensors
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        kind = _DTYPES[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % 8)  # the first tensor stands at a multiple of 8 bytes
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.flatten().view(torch.uint8).numpy().data)


def _check_weights(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: Path) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not part of the model" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, the model needs {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        rest = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise TrainingError(
            f"the weights do not fit config.json: {'; '.join(problems[:_SHOWN])}{rest}",
            place=place,
            remedy="keep config.json and model.safetensors of one model together",
        )
