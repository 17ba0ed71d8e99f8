"""A GGUF file, which llama.cpp and the programs built on it run.

Written here and not by llama.cpp's converter, which refuses every newly trained vocabulary (see
``pre_tokenizers``). Sources: the ``gguf`` package, and llama.cpp, conversion/llama.py.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporting.pre_tokenizers import llama_cpp_name
from exporting.precision import rounded
from modeling.rope import RopeScaling
from vnprep.durable import TEMPORARY_SUFFIX, fsync_folder
from vnprep.errors import TrainingError
from vnprep.tokenizer.load import LoadedTokenizer

#: What ``--dtype`` takes for GGUF, and llama.cpp's two names for it.
GGUF_TYPES = {
    "fp32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "fp16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
#: Not a weight of the model; llama.cpp's own name.
_ROPE_FACTORS = "rope_freqs.weight"
_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen3": gguf.MODEL_ARCH.QWEN3}


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tokenizer: LoadedTokenizer,
    template: str,
    dtype: str,
    name: str,
) -> None:
    """Write the file; it is either whole or not there.

    Args:
        path: the file.
        config: content of the model's ``config.json``; its vocabulary is the tokenizer's.
        tensors: weights under Hugging Face's names.
        tokenizer: byte-level BPE.
        template: the chat template.
        dtype: a key of ``GGUF_TYPES``; norms are float32 in any case.
        name: of the model, for people.

    Raises:
        TrainingError: llama.cpp cannot run this tokenizer or architecture.
    """
    content = json.loads(tokenizer.text)
    pre = llama_cpp_name(content)
    if config["model_type"] not in _ARCHITECTURES:
        raise TrainingError(
            f"no GGUF form is known here for the architecture {config['model_type']}",
            remedy="export to Hugging Face's form",
        )
    factors = _rope_factors(config, _head_dim(config))
    kind, file_type = GGUF_TYPES[dtype]
    architecture = _ARCHITECTURES[config["model_type"]]
    with _written(path, gguf.MODEL_ARCH_NAMES[architecture]) as writer:
        writer.add_name(name)
        _add_shape(writer, config)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_tokenizer(writer, content, tokenizer, pre)
        writer.add_chat_template(template)
        _add_tensors(writer, architecture, config, {**tensors, **factors}, kind)


@contextlib.contextmanager
def _written(path: Path, architecture: str) -> Iterator[gguf.GGUFWriter]:
    """Give the package a temporary name to write to, and the file its own once it is on disk."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    writer = gguf.GGUFWriter(temporary, architecture)
    try:
        yield writer
        writer.close()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what matters
            writer.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _add_shape(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    head_dim = _head_dim(config)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    _add_rope(writer, config)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _add_rope(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    theta, scaling = _rope(config)
    writer.add_rope_freq_base(theta)
    if scaling is not None and scaling.rope_type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling.factor)


def _rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Return the base of the frequencies and their scaling, from either form of ``config.json``."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or config["rope_theta"])
    return theta, RopeScaling.from_hf(rope, config["max_position_embeddings"])


def _rope_factors(config: Mapping[str, Any], head_dim: int) -> dict[str, Tensor]:
    """Return what llama.cpp divides each frequency by under Llama 3.1's rule, as a tensor to store.

    Raises:
        TrainingError: the architecture has no place for it in llama.cpp.
    """
    theta, scaling = _rope(config)
    if scaling is None or scaling.rope_type != "llama3":
        return {}
    if config["model_type"] != "llama":
        raise TrainingError(
            f"llama.cpp has no RoPE scaling of the kind llama3 for {config['model_type']}",
            remedy="export to Hugging Face's form",
        )
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    return {_ROPE_FACTORS: frequencies / scaling.scaled(frequencies)}


def _add_tokenizer(
    writer: gguf.GGUFWriter, content: Mapping[str, Any], tokenizer: LoadedTokenizer, pre: str
) -> None:
    special = tokenizer.special
    tokens, types = _vocabulary(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(_merges(content["model"]["merges"]))
    writer.add_bos_token_id(special.bos)
    writer.add_eos_token_id(special.eos)
    writer.add_pad_token_id(special.pad)
    writer.add_sep_token_id(special.sep)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _vocabulary(tokenizer: LoadedTokenizer) -> tuple[list[str], list[gguf.TokenType]]:
    """Return each id's text, in the byte-level alphabet, and its kind."""
    # An id that no text has must still have a name of its own.
    tokens = [f"[UNUSED{number}]" for number in range(tokenizer.vocab_size)]
    types = [gguf.TokenType.UNUSED] * tokenizer.vocab_size
    # Asked of the library, which numbers added tokens anew where the file's ids leave a gap.
    for token, number in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        tokens[number], types[number] = token, gguf.TokenType.NORMAL
    for number, added in tokenizer.backend.get_added_tokens_decoder().items():
        tokens[number] = added.content
        types[number] = gguf.TokenType.CONTROL if added.special else gguf.TokenType.USER_DEFINED
    for number in tokenizer.special.as_dict().values():
        types[number] = gguf.TokenType.CONTROL
    return tokens, types


def _merges(merges: Sequence[str | Sequence[str]]) -> list[str]:
    """Return the merges in the one form that llama.cpp reads; tokenizer.json has two."""
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _add_tensors(
    writer: gguf.GGUFWriter,
    architecture: gguf.MODEL_ARCH,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    kind: gguf.GGMLQuantizationType,
) -> None:
    """Write tensor after tensor: only one at a time is held in its new form."""
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    kinds = {name: _kind(tensor, kind) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        theirs = name if name == _ROPE_FACTORS else names.get_name(name, (".weight",))
        assert theirs is not None, name
        shape = gguf.quant_shape_to_byte_shape(tuple(tensor.shape), kinds[name])
        size = int(np.prod(shape))
        writer.add_tensor_info(theirs, shape, np.dtype(np.uint8), size, raw_dtype=kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in tensors.items():
        writer.write_tensor_data(_bytes(name, tensor, config, kinds[name]))


def _kind(tensor: Tensor, kind: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    if tensor.dim() < 2:
        return gguf.GGMLQuantizationType.F32  # norms: llama.cpp computes them so
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    # Rows that do not divide into blocks are kept wider, as llama.cpp's own tools do.
    return kind if tensor.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _bytes(
    name: str, tensor: Tensor, config: Mapping[str, Any], kind: gguf.GGMLQuantizationType
) -> NDArray[np.uint8]:
    if config["model_type"] == "llama":
        tensor = _paired(name, tensor, config)
    if kind == gguf.GGMLQuantizationType.F16:
        rounded(name, tensor, torch.float16)
    wide = tensor.float().contiguous().numpy()
    return np.ascontiguousarray(gguf.quantize(wide, kind)).view(np.uint8)


def _paired(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Reorder the rows of queries and keys for llama.cpp's Llama.

    It turns dimension 2i with 2i + 1, where Hugging Face's form turns i with i + head_dim / 2.
    """
    if name.endswith("q_proj.weight"):
        heads = config["num_attention_heads"]
    elif name.endswith("k_proj.weight"):
        heads = config["num_key_value_heads"]
    else:
        return tensor
    pairs = tensor.view(heads, 2, -1, tensor.shape[-1]).transpose(1, 2)
    return pairs.reshape(tensor.shape)
