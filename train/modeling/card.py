"""What is known of a trained model without reading its weights; needs no torch.

A model folder holds ``config.json``, ``tokenizer.json``, ``model.safetensors`` and, written last,
``vnprep_model.json``, which vouches for the other three.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.config import ModelConfig
from modeling.foreign_config import ForeignConfig, read_foreign
from modeling.presets import read_config
from vnprep.config import Stage
from vnprep.durable import readable_json, sha256_file, write_text
from vnprep.errors import TrainingError
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer
from vnprep.tokenizer.special import SpecialIds

FORMAT = "vnprep-model"
FORMAT_VERSION = 1
CARD_NAME = "vnprep_model.json"
CONFIG_NAME = "config.json"
TOKENIZER_NAME = "tokenizer.json"
WEIGHTS_NAME = "model.safetensors"
#: Where a run folder keeps its final model.
MODEL_FOLDER = "model"


@dataclass(frozen=True)
class ModelCard:
    """A model folder's record of itself.

    Attributes:
        folder: where the files are.
        config: the model's shape.
        stage: what it was trained on last, ``pretrain`` or ``finetune``.
        special: ids of the special tokens.
        token_names: their texts in the tokenizer, by role.
        fingerprint: of the tokenizer; what prepared data must carry too.
        hashes: SHA-256 of each file, by name.
        untrained: ids of tokens that were added and not trained yet (see ``train/adopt.py``).
    """

    folder: Path
    config: ModelConfig
    stage: Stage
    special: SpecialIds
    token_names: Mapping[str, str]
    fingerprint: str
    hashes: Mapping[str, str]
    untrained: tuple[int, ...] = ()

    def tokenizer(self) -> LoadedTokenizer:
        """Load the tokenizer.

        Raises:
            TrainingError: it is not the one that the model was trained with.
        """
        path = self.folder / TOKENIZER_NAME
        loaded = load_tokenizer(path, self.token_names)
        if loaded.fingerprint != self.fingerprint:
            raise TrainingError(
                f"this tokenizer (fingerprint {loaded.fingerprint[:12]}) is not the one that the "
                f"model was trained with ({self.fingerprint[:12]})",
                place=path,
                remedy="put the original tokenizer.json back",
            )
        return loaded

    def verify(self) -> None:
        """Hash the files.

        Raises:
            TrainingError: one is missing, or changed since the model was written.
        """
        for name, stated in self.hashes.items():
            file = self.folder / name
            if not file.is_file() or sha256_file(file) != stated:
                raise TrainingError(
                    "changed after the model was written" if file.is_file() else "missing",
                    place=file,
                    remedy="restore the file, or train the model again",
                )

    def write(self) -> None:
        """Write ``vnprep_model.json``: from now on the folder is a model."""
        body = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "stage": self.stage,
            "special_ids": self.special.as_dict(),
            "special_tokens": dict(self.token_names),
            "tokenizer_fingerprint": self.fingerprint,
            "sha256": dict(self.hashes),
        }
        if isinstance(self.config, ForeignConfig):
            body["model_impl"] = "hf"
        if self.untrained:
            body["untrained_ids"] = list(self.untrained)
        write_text(self.folder / CARD_NAME, readable_json(body))


def model_folder(folder: Path) -> Path:
    """Return the model folder of a run folder, or the folder itself if it is one.

    Raises:
        TrainingError: there is no finished model.
    """
    for candidate in (folder / MODEL_FOLDER, folder):
        if (candidate / CARD_NAME).is_file():
            return candidate
    exists = folder.is_dir()
    resume = "; one that was stopped goes on when it is started again" if exists else ""
    raise TrainingError(
        "no trained model here" if exists else "no such folder",
        place=folder,
        remedy=f"give the --out folder of a training run that has ended{resume}",
    )


def read_card(folder: str | Path) -> ModelCard:
    """Read the record of a model; the files it vouches for are not hashed (see ``verify``).

    Args:
        folder: a run folder, or the ``model`` folder in it.

    Raises:
        TrainingError: no finished model, or a record that cannot be read.
    """
    folder = model_folder(Path(folder))
    try:
        body: dict[str, Any] = json.loads((folder / CARD_NAME).read_bytes())
        if (body["format"], body["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"format {body['format']} {body['format_version']}")
        return ModelCard(
            folder,
            (read_foreign if body.get("model_impl") == "hf" else read_config)(folder / CONFIG_NAME),
            body["stage"],
            SpecialIds(**body["special_ids"]),
            body["special_tokens"],
            body["tokenizer_fingerprint"],
            body["sha256"],
            tuple(body.get("untrained_ids", ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"not a record of a model that this version reads ({type(error).__name__}: {error})",
            place=folder / CARD_NAME,
            remedy="train the model again",
        ) from None
