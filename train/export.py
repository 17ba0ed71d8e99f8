"""Write a trained model in Hugging Face's form, or as a GGUF file for llama.cpp."""

from __future__ import annotations

from pathlib import Path

import click

from cli_errors import show_errors
from exporting.huggingface import GB, check_folder, export
from exporting.precision import DTYPES, exported_weights
from exporting.tokenizer_files import exported_tokenizer
from inference.chat_template import chat_template
from inference.options import CHECKPOINT_OPTION, RUN_ARGUMENT
from modeling.weights import LoadedModel
from trainer.runmodel import load_run
from vnprep.errors import OutputError, TrainingError

__all__ = ["export", "export_gguf", "exported_tokenizer", "main"]

_EPILOG = """\b
Examples:
  python train/export.py runs/ft --out hf/
  python train/export.py runs/ft --out hf/ --dtype bf16 --checkpoint newest
  python train/export.py runs/ft --to gguf --out model.gguf --dtype q8_0
  python -c "from transformers import AutoModelForCausalLM as M; M.from_pretrained('hf/')"
"""


@click.command(epilog=_EPILOG)
@RUN_ARGUMENT
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write; new, empty, or an earlier export, which is replaced. With --to gguf, "
    "the file.",
)
@click.option(
    "--to",
    "form",
    type=click.Choice(["hf", "gguf"]),
    default="hf",
    show_default=True,
    help="hf: a folder for transformers and vLLM. gguf: one file for llama.cpp and Ollama.",
)
@click.option(
    "--dtype",
    type=click.Choice([*DTYPES, "q8_0"]),
    default="fp32",
    show_default=True,
    help="Precision of the weights. q8_0, for gguf alone, takes about a byte a weight.",
)
@click.option(
    "--max-shard-gb",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Largest weight file in 10⁹ bytes; a larger model is split over several, with an index.",
)
@CHECKPOINT_OPTION
@show_errors
def main(
    run: Path, out: Path, form: str, dtype: str, max_shard_gb: float, checkpoint: str | None
) -> None:
    """Write the model in the folder RUN for transformers, vLLM, llama.cpp and the like.

    The folder loads with AutoModelForCausalLM and AutoTokenizer, without code of this project. Its
    chat template is the request format, [BOS] REQUEST [SEP]. Other programs turn the characters of
    a special token inside a message into that token; the template refuses such a message instead.
    """
    if form == "gguf":
        _check_file(out)
        export_gguf(load_run(run, checkpoint), out, dtype)
        click.echo(f"wrote {out}: {out.stat().st_size:,} bytes", err=True)
        return
    if dtype not in DTYPES:
        raise TrainingError(
            "is a form of GGUF", place=f"--dtype {dtype}", remedy="add --to gguf, or take bf16"
        )
    check_folder(out)
    max_bytes = int(max_shard_gb * GB)
    loaded = load_run(run, checkpoint)
    names = export(loaded, out, dtype=DTYPES[dtype], max_shard_bytes=max_bytes)
    click.echo(f"wrote {out}: {', '.join(names)}", err=True)


def export_gguf(loaded: LoadedModel, out: Path, dtype: str) -> None:
    """Write a model as a GGUF file.

    Args:
        loaded: the model.
        out: the file; an earlier one is replaced.
        dtype: a key of ``exporting.gguf_file.GGUF_TYPES``.

    Raises:
        TrainingError: llama.cpp cannot run its tokenizer.
    """
    try:
        from exporting.gguf_file import write_gguf
    except ModuleNotFoundError:
        raise TrainingError(
            "the package gguf is missing", remedy="install it: pip install gguf"
        ) from None
    tokenizer = loaded.tokenizer()
    weights = DTYPES["fp32"]  # as they are; the file's own types are made tensor by tensor
    config, tensors = exported_weights(loaded, tokenizer.vocab_size, weights)
    out.parent.mkdir(parents=True, exist_ok=True)
    template = chat_template(tokenizer)
    write_gguf(out, config.to_hf(), tensors, tokenizer, template, dtype, out.stem)


def _check_file(out: Path) -> None:
    if out.is_dir() or out.suffix != ".gguf":
        raise OutputError("not the name of a GGUF file", place=out, remedy="give --out NAME.gguf")


if __name__ == "__main__":
    main()
