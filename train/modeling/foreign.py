"""Other architectures: a model of transformers behind the interface of ours, slower but any.

Packed documents are kept apart by a mask of four dimensions, which transformers passes on to its
layers as it is. Whether an architecture heeds it is not believed but tried, on the very model.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.attention import document_mask
from modeling.foreign_config import ForeignConfig
from modeling.loss import IGNORE_INDEX
from modeling.vocabulary import resized_rows
from vnprep.errors import TrainingError

#: Positions of the row that is tried, and the largest error, as a share of the largest logit.
_TRIED_POSITIONS = 64
_TOLERANCE = 2e-6
_PADDING = 3
#: Before the names of transformers' parameters, in the module and nowhere else.
PREFIX = "hf."


class ForeignCausalLM(nn.Module):
    """A decoder of transformers; its ``forward`` is that of ``LlamaForCausalLM``, without cache."""

    def __init__(self, model: Any, config: ForeignConfig) -> None:
        super().__init__()
        self.config = config
        self.hf = model
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cu_seqlens: Tensor | None = None,  # noqa: ARG002  (says what document_ids says)
    ) -> Tensor:
        """Predict the next token at every position; see ``LlamaForCausalLM.forward``."""
        inputs: dict[str, Any] = {"input_ids": input_ids, "use_cache": False}
        if document_ids is not None:
            dtype = self.hf.get_input_embeddings().weight.dtype
            allowed = document_mask(document_ids, document_ids)
            mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            inputs["attention_mask"] = mask.masked_fill(~allowed, torch.finfo(dtype).min)
        if position_ids is not None and self._takes_positions:
            inputs["position_ids"] = position_ids
        logits: Tensor = self.hf(**inputs).logits
        if labels is None:
            return logits
        flat, targets = logits.flatten(0, 1).float(), labels.flatten().long()
        return F.cross_entropy(flat, targets, ignore_index=IGNORE_INDEX, reduction="sum")


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state by transformers' names; what shares its memory with another is left out."""
    seen: set[tuple[int, torch.Size]] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.is_meta or tensor.numel() == 0 or place not in seen:
            plain[name.removeprefix(PREFIX)] = tensor
        seen.add(place)
    return plain


def fresh(config: ForeignConfig) -> ForeignCausalLM:
    """Make a model with random weights, as transformers draws them, in float32."""
    from transformers import AutoConfig

    content = config.to_hf()
    for name in ("dtype", "torch_dtype"):
        content.pop(name, None)
    shape = AutoConfig.for_model(content.pop("model_type"), **content)
    return ForeignCausalLM(_auto_model().from_config(shape), config)


def _auto_model() -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()  # one a rank, amid the lines of the run
    return AutoModelForCausalLM


def load_foreign(
    folder: Path, config: ForeignConfig, dtype: torch.dtype = torch.float32
) -> ForeignCausalLM:
    """Load a model's weights, whose vocabulary need not be that of ``config`` yet.

    Raises:
        TrainingError: transformers cannot load it, or some weights are missing.
    """
    try:
        model, info = _auto_model().from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise TrainingError(
            f"transformers cannot load it ({' '.join(str(error).split())})",
            place=folder,
            remedy="look whether AutoModelForCausalLM.from_pretrained loads it",
        ) from None
    # transformers draws what it does not find, and trains on as if nothing were amiss.
    if missing := sorted(info["missing_keys"]):
        raise TrainingError(
            f"{len(missing)} weights are missing: {', '.join(missing[:3])}",
            place=folder,
            remedy="take the folder of a whole model",
        )
    return ForeignCausalLM(model, config)


def fit_vocabulary(model: ForeignCausalLM, new_ids: list[int], known_ids: list[int]) -> None:
    """Give a model the rows of its configuration, new tokens the mean of the known rows."""
    size = model.config.vocab_size
    modules = (model.hf.get_input_embeddings(), model.hf.get_output_embeddings())
    weights = [module.weight.detach().clone() for module in modules]
    model.hf.resize_token_embeddings(size, mean_resizing=False)
    modules = (model.hf.get_input_embeddings(), model.hf.get_output_embeddings())
    with torch.no_grad():
        for module, weight in zip(modules, weights, strict=True):
            module.weight.copy_(resized_rows(weight, new_ids, known_ids, size))


def check_isolation(model: ForeignCausalLM, positions: int) -> None:
    """See, on the very model, that packed documents give the logits that they give alone.

    Args:
        model: in float32.
        positions: of a packed row; a shorter one is tried if this is long.

    Raises:
        TrainingError: they do not, or the architecture cannot be packed at all.
    """
    _refuse_shared_rope(model, positions)
    total = min(positions, _TRIED_POSITIONS)
    lengths = [total // 2, total - total // 2 - _PADDING]
    ids, positions_, documents = _packed(lengths, total, model.config.vocab_size)
    was_training = model.training
    # In float64, or a fresh model's small weights would hide what documents tell each other.
    model.eval().double()
    try:
        with torch.no_grad():
            packed = model(ids, positions_, documents)
            starts = (0, lengths[0])
            parts = [slice(at, at + n) for at, n in zip(starts, lengths, strict=True)]
            alone = [model(ids[:, part]) for part in parts]
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise _leaks(model, f"it fails on packed rows ({' '.join(str(error).split())})") from None
    finally:
        model.float().train(was_training)
    largest = max(float(logits.abs().max()) for logits in alone)
    worst = max(
        float((packed[:, part] - logits).abs().max())
        for part, logits in zip(parts, alone, strict=True)
    )
    if not worst <= _TOLERANCE * max(largest, 1e-3):
        raise _leaks(
            model,
            f"a document's logits differ by {worst:.2g} when another stands before it in the row",
        )


def _refuse_shared_rope(model: ForeignCausalLM, positions: int) -> None:
    """Refuse rotary positions whose frequencies follow the longest document of a batch."""
    config = model.hf.config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type"))
    limits = (
        rope.get("original_max_position_embeddings"),
        getattr(config, "original_max_position_embeddings", None),
        model.config.max_position_embeddings,
    )
    limit = next(int(each) for each in limits if each)
    if kind in ("longrope", "dynamic") and positions > limit:
        raise TrainingError(
            f"its rotary positions ({kind}) change for a whole batch beyond {limit:,} positions",
            place="--model-impl hf",
            remedy=f"give --seq-len {limit} or less",
        )


def _packed(lengths: list[int], total: int, vocab_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, positions and documents of a row: the documents, then padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (1, total), generator=generator)
    positions = torch.zeros(1, total, dtype=torch.long)
    documents = torch.full((1, total), -1, dtype=torch.int32)
    start = 0
    for number, length in enumerate(lengths):
        positions[0, start : start + length] = torch.arange(length)
        documents[0, start : start + length] = number
        start += length
    return ids, positions, documents


def _leaks(model: ForeignCausalLM, cause: str) -> TrainingError:
    return TrainingError(
        f"documents packed into one row would see each other in {model.config.model_type}: {cause}",
        place="--model-impl hf",
        remedy="take a decoder whose only tie between positions is attention, such as gpt2, "
        "mistral or gemma2",
    )
