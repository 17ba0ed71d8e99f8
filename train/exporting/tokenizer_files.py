"""The tokenizer and its settings as transformers and vLLM read them."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, normalizers, processors

from modeling.config import ModelConfig
from modeling.weights import LoadedModel
from vnprep.durable import readable_json
from vnprep.tokenizer.load import LoadedTokenizer

#: Longest answer that other programs write unless told otherwise.
MAX_NEW_TOKENS = 128


def exported_tokenizer(tokenizer: LoadedTokenizer) -> str:
    """Return the ``tokenizer.json``, made to do alone what our own code does around it.

    It brings text to NFC, and ``tokenizer(text)`` begins with ``[BOS]``, as pretraining does. The
    chat template brings its own ``[BOS]`` and is encoded without this.
    """
    exported = Tokenizer.from_str(tokenizer.text)
    exported.no_truncation()
    exported.no_padding()
    own = exported.normalizer
    if not isinstance(own, normalizers.NFC):
        nfc = normalizers.NFC()
        exported.normalizer = nfc if own is None else normalizers.Sequence([nfc, own])
    if exported.post_processor is None:
        bos = tokenizer.special.bos
        name = exported.id_to_token(bos)
        exported.post_processor = processors.TemplateProcessing(
            single=f"{name} $A",
            pair=f"{name} $A {name} $B",
            special_tokens=[(name, bos)],
        )
    return readable_json(json.loads(exported.to_str()))


def tokenizer_config(loaded: LoadedModel, config: ModelConfig, template: str) -> dict[str, object]:
    """Return the content of ``tokenizer_config.json``."""
    names = loaded.card.token_names
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names["bos"],
        "eos_token": names["eos"],
        "pad_token": names["pad"],
        "sep_token": names["sep"],
        "model_max_length": config.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        # So that the answers of a batch begin at one column.
        "padding_side": "left",
        # Here too for programs that do not read chat_template.jinja.
        "chat_template": template,
    }


def generation_config(config: ModelConfig) -> dict[str, object]:
    """Return the content of ``generation_config.json``: where to stop, and the likeliest token."""
    return {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "do_sample": False,
        "max_new_tokens": MAX_NEW_TOKENS,
    }
