"""The shape of a model, and its translation to and from a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modeling.rope import RopeScaling
from vnprep.errors import TrainingError

#: ``model_type`` of each family, and its architecture's name at Hugging Face.
FAMILIES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}


@dataclass(frozen=True)
class ModelConfig:
    """A decoder of the Llama or the Qwen3 family.

    Qwen3 is Llama with a norm over each query and key head before the rotation, and heads whose
    size is free of ``hidden_size``.

    Attributes:
        vocab_size: rows of the embedding; may exceed the tokenizer's vocabulary (see
            ``presets.padded_vocab_size``).
        hidden_size: width of the residual stream.
        intermediate_size: width inside the SwiGLU block.
        num_hidden_layers: decoder layers.
        num_attention_heads: query heads.
        num_key_value_heads: key/value heads; they divide the query heads (GQA).
        max_position_embeddings: longest sequence, in tokens.
        rms_norm_eps: added to the mean square in RMSNorm.
        rope_theta: base of the rotary frequencies.
        tie_word_embeddings: whether the output head shares the embedding's weight.
        initializer_range: standard deviation of fresh weights.
        pad_token_id, bos_token_id, eos_token_id: ids of the special tokens.
        model_type: key of ``FAMILIES``.
        head_dim: dimensions of one head; 0 is ``hidden_size / num_attention_heads``.
        rope_scaling: how the rotary frequencies are stretched for long texts, or None.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    pad_token_id: int = 0
    bos_token_id: int = 1
    eos_token_id: int = 2
    model_type: str = "llama"
    head_dim: int = 0
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise _refused(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.model_type not in FAMILIES:
            raise _refused(f"model_type is {self.model_type!r}, not one of {', '.join(FAMILIES)}")
        if self.head_dim == 0:
            if self.hidden_size % self.num_attention_heads:
                raise _refused(
                    f"hidden_size {self.hidden_size} cannot be divided over "
                    f"num_attention_heads {self.num_attention_heads}"
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.num_attention_heads % self.num_key_value_heads:
            raise _refused(
                f"num_attention_heads {self.num_attention_heads} cannot be divided over "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise _refused(f"a head of {self.head_dim} dimensions is odd; RoPE turns pairs")

    @property
    def qk_norm(self) -> bool:
        """Whether each query and key head is normed before the rotation."""
        return self.model_type == "qwen3"

    @property
    def projections(self) -> tuple[int, int, int]:
        """Rows of the query, key and value projections."""
        key_value = self.num_key_value_heads * self.head_dim
        return self.num_attention_heads * self.head_dim, key_value, key_value

    def to_hf(self) -> dict[str, Any]:
        """Return the content of a ``config.json`` that transformers loads as it is."""
        content = {
            "architectures": [FAMILIES[self.model_type]],
            "model_type": self.model_type,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            # The older form, which transformers 4 and 5 and other programs all read.
            "rope_theta": self.rope_theta,
            "rope_scaling": None if self.rope_scaling is None else self.rope_scaling.to_hf(),
            "use_cache": True,
            **{name: getattr(self, name) for name in (*_SIZES, *_OTHERS)},
        }
        if self.model_type == "llama":
            content["mlp_bias"] = False
        return content

    @classmethod
    def from_hf(cls, content: Mapping[str, Any]) -> ModelConfig:
        """Read the ``config.json`` of a model of one of ``FAMILIES``.

        Raises:
            TrainingError: another architecture, or a variant that this model does not have.
        """
        family = content.get("model_type")
        if family not in FAMILIES:
            raise _refused(f"model_type is {family!r}, not one of {', '.join(FAMILIES)}")
        missing = [name for name in _SIZES if name not in content and name not in _DERIVED]
        if missing:
            raise _refused(f"config.json lacks {', '.join(missing)}")
        names = (*_SIZES, *_OTHERS)
        values = {name: content[name] for name in names if content.get(name) is not None}
        values.setdefault("num_key_value_heads", content["num_attention_heads"])
        values["model_type"] = family
        # Qwen3's own default; a Llama's heads divide the width.
        values["head_dim"] = content.get("head_dim") or (128 if family == "qwen3" else 0)
        rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
        values["rope_theta"] = float(rope.get("rope_theta", content.get("rope_theta", 10_000.0)))
        try:
            values["rope_scaling"] = RopeScaling.from_hf(rope, values["max_position_embeddings"])
        except ValueError as error:
            raise _refused(str(error)) from None
        # Some models list several ends; the first is the one that ends a document.
        if isinstance(ends := values.get("eos_token_id"), list):
            values["eos_token_id"] = ends[0]
        # transformers' own defaults, for the keys that a config.json may leave out.
        values.setdefault("tie_word_embeddings", False)
        values.setdefault("rms_norm_eps", 1e-6)
        config = cls(**values)
        _refuse_variants(content)
        return config


_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)
_DERIVED = ("num_key_value_heads",)
_OTHERS = (
    "rms_norm_eps",
    "tie_word_embeddings",
    "initializer_range",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


def _refused(cause: str) -> TrainingError:
    return TrainingError(
        cause, place="model configuration", remedy="correct it, or take a preset: --model tiny"
    )


def _refuse_variants(content: Mapping[str, Any]) -> None:
    expected: dict[str, Any] = {
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "use_sliding_window": False,
    }
    for name, value in expected.items():
        if (given := content.get(name)) is not None and given != value:
            raise _refused(f"{name} is {given!r}; this model has {value!r}")
