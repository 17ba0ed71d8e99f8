"""Write a trained model in Hugging Face's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
from tokenizers import Tokenizer, normalizers, processors
from torch import Tensor

from cli_errors import show_errors
from inference.chat_template import chat_template
from modeling.card import CONFIG_NAME, TOKENIZER_NAME, WEIGHTS_NAME
from modeling.config import ModelConfig
from modeling.weights import LoadedModel, load_model, storable, write_config, write_tensors
from vnprep.durable import readable_json, write_text
from vnprep.errors import OutputError
from vnprep.tokenizer.load import LoadedTokenizer

TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
GENERATION_CONFIG_NAME = "generation_config.json"
TEMPLATE_NAME = "chat_template.jinja"
#: Longest answer that other programs write unless told otherwise.
MAX_NEW_TOKENS = 128

_FILES = (
    CONFIG_NAME,
    WEIGHTS_NAME,
    TOKENIZER_NAME,
    TOKENIZER_CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    TEMPLATE_NAME,
)
_VOCABULARY_ROWS = ("model.embed_tokens.weight", "lm_head.weight")
_EPILOG = """\b
Examples:
  python train/export.py runs/ft --out hf/
  python -c "from transformers import AutoModelForCausalLM as M; M.from_pretrained('hf/')"
"""


@click.command(epilog=_EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write; new, empty, or an earlier export, which is replaced.",
)
@show_errors
def main(run: Path, out: Path) -> None:
    """Write the model in the folder RUN for transformers, vLLM and the like.

    The folder loads with AutoModelForCausalLM and AutoTokenizer, without code of this project. Its
    chat template is the request format, [BOS] REQUEST [SEP]. Other programs turn the characters of
    a special token inside a message into that token; the template refuses such a message instead.
    """
    _check_folder(out)
    loaded = load_model(run)
    export(loaded, out)
    click.echo(f"wrote {out}: {', '.join(_FILES)}", err=True)


def export(loaded: LoadedModel, out: Path) -> None:
    """Write the files; ``config.json``, without which nothing loads, comes last."""
    tokenizer = loaded.tokenizer()
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG_NAME).unlink(missing_ok=True)
    config = replace(loaded.config, vocab_size=tokenizer.vocab_size)
    tensors = trimmed(storable(loaded.model.state_dict(), config), config)
    template = chat_template(tokenizer)
    write_tensors(out / WEIGHTS_NAME, tensors)
    write_text(out / TOKENIZER_NAME, exported_tokenizer(tokenizer))
    write_text(out / TEMPLATE_NAME, template)
    write_text(
        out / TOKENIZER_CONFIG_NAME, readable_json(_tokenizer_config(loaded, config, template))
    )
    write_text(out / GENERATION_CONFIG_NAME, readable_json(_generation_config(config)))
    write_config(out / CONFIG_NAME, config, tensors)


def trimmed(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Leave out the rows that only pad the vocabulary, so that no program can choose them."""
    return {
        name: tensor[: config.vocab_size].contiguous() if name in _VOCABULARY_ROWS else tensor
        for name, tensor in tensors.items()
    }


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


def _tokenizer_config(loaded: LoadedModel, config: ModelConfig, template: str) -> dict[str, object]:
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


def _generation_config(config: ModelConfig) -> dict[str, object]:
    return {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "do_sample": False,
        "max_new_tokens": MAX_NEW_TOKENS,
    }


def _check_folder(out: Path) -> None:
    if not out.is_dir():
        return
    foreign = sorted(path.name for path in out.iterdir() if path.name not in _FILES)
    if foreign:
        raise OutputError(
            f"the folder holds other files ({', '.join(foreign[:3])})",
            place=out,
            remedy="give a new folder with --out",
        )


if __name__ == "__main__":
    main()
