"""Options that exclude each other, or do nothing without another, are refused before all else."""

from __future__ import annotations

from typing import Any

import click

#: LoRA's options, as they are without LoRA.
_LORA: dict[str, Any] = {
    "lora": None,
    "lora_alpha": None,
    "lora_targets": None,
    "lora_dropout": 0.0,
    "lora_embeddings": None,
}


def check(values: dict[str, Any]) -> None:
    """See that options fit together; LoRA's are filled in where a script has none.

    Args:
        values: by the options' names, as click parsed them.

    Raises:
        click.UsageError: they do not.
    """
    _check_lora(values)
    _check_alternatives(values)
    _check_mix(values)
    _check_belonging(values)
    _check_needs(values)


def _check_alternatives(values: dict[str, Any]) -> None:
    if (values["model"] is None) == (values["init"] is None):
        raise click.UsageError(
            "give one of --model, for a model from nothing, and --init, to start from one"
        )
    if values["steps"] is not None and values["epochs"] is not None:
        raise click.UsageError("--steps and --epochs exclude each other: give one of them")


def _check_mix(values: dict[str, Any]) -> None:
    count = len(values["data"])
    if len(values["mix"] or (1.0,)) != count:
        raise click.UsageError(
            f"--mix needs a weight for each --data, {count} here, e.g. --mix "
            + ",".join(["1"] * count)
        )


def _check_belonging(values: dict[str, Any]) -> None:
    if values["decay"] is not None and values["schedule"] != "wsd":
        raise click.UsageError(
            f"--decay belongs to --schedule wsd; --schedule {values['schedule']} has no part "
            "of its own that falls"
        )
    for name in ("ranks", "json"):
        if values[name] and not values["dry_run"]:
            raise click.UsageError(f"--{name} belongs to --dry-run")
    for name in ("muon_lr", "muon_momentum"):
        if values[name] is not None and values["optimizer"] != "muon":
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to --optimizer muon")


def _check_needs(values: dict[str, Any]) -> None:
    """Refuse options that would do nothing without another."""
    asked = values["sample_prompt"] or values["sample_prompts"]
    for name, works, needs in (
        ("eval_every", values["valid"], "--valid"),
        ("sample_every", values["valid"] or asked, "--valid or --sample-prompt"),
        ("sample_tokens", values["valid"] or asked, "--valid or --sample-prompt"),
        ("keep_every", values["save_every"] or not values["keep_every"], "--save-every above 0"),
        ("min_lr_ratio", values["schedule"] != "constant", "a --schedule that falls"),
    ):
        if _given(name) and not works:
            raise click.UsageError(f"--{name.replace('_', '-')} does nothing without {needs}")


def _given(name: str) -> bool:
    """Whether the user named an option."""
    context = click.get_current_context(silent=True)
    source = None if context is None else context.get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _check_lora(values: dict[str, Any]) -> None:
    """Fill in LoRA's options where a script has none; refuse those that need ``--lora``."""
    for name, default in _LORA.items():
        values.setdefault(name, default)
        if values["lora"] is None and values[name] != default:
            raise click.UsageError(
                f"--{name.replace('_', '-')} means something with --lora only: give --lora RANK too"
            )
