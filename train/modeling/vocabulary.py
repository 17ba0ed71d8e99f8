"""Special tokens for a tokenizer that lacks some, and rows for them in the embeddings.

The rule: what a model has learned stays. No token of its tokenizer changes its id, text is cut as
before, and new tokens get ids behind all others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from modeling.presets import padded_vocab_size
from vnprep.errors import TrainingError
from vnprep.tokenizer.special import BOS, EOS, PAD, SEP

if TYPE_CHECKING:
    from torch import Tensor

#: Texts of the tokens that are added.
_DEFAULTS = {"eos": EOS, "bos": BOS, "pad": PAD, "sep": SEP}
#: What of a tokenizer decides the ids of a text, beside its vocabulary.
_RULES = ("normalizer", "pre_tokenizer", "model")


def choose_tokens(
    vocabulary: Mapping[str, int], stated: Mapping[str, str], asked: Mapping[str, str]
) -> dict[str, str]:
    """Choose a token of its own for each role, known or new.

    Args:
        vocabulary: token text to id.
        stated: what the model's files name.
        asked: what the user names; it comes first.

    Returns:
        Token texts by role, in the order in which new ones get their ids.

    Raises:
        TrainingError: two roles were asked to share a token.
    """
    if len(set(asked.values())) < len(asked):
        raise TrainingError(
            "two roles have one token",
            place="--special",
            remedy="give each of bos, eos, pad and sep a token of its own",
        )
    chosen = dict(asked)
    # eos first: of a token that serves as pad, too, it is eos that the model has learned.
    for role, default in _DEFAULTS.items():
        if role in chosen:
            continue
        token = stated.get(role)
        if token is None or token not in vocabulary or token in chosen.values():
            token = default
        if token in chosen.values():
            raise TrainingError(
                f"{token} is asked for as another token than {role}",
                place="--special",
                remedy=f"name a token for {role}, too",
            )
        chosen[role] = token
    return {role: chosen[role] for role in _DEFAULTS}


def add_tokens(text: str, tokens: Mapping[str, str]) -> str:
    """Add to a ``tokenizer.json`` the tokens that it does not have.

    Args:
        text: the file's.
        tokens: token texts by role.

    Returns:
        The text as it was if nothing is missing.
    """
    content = json.loads(text)
    vocabulary = Tokenizer.from_str(text).get_vocab(with_added_tokens=True)
    missing = [token for token in tokens.values() if token not in vocabulary]
    if not missing:
        return text
    first = max(vocabulary.values()) + 1
    entries = content.get("added_tokens") or []
    for number, token in enumerate(missing, start=first):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        entries.append({"id": number, "content": token, **flags, "special": True})
    content["added_tokens"] = entries
    extended = json.dumps(content, ensure_ascii=False, indent=2)
    check_extends(text, extended)
    return extended


def check_extends(base: str, extended: str) -> list[int]:
    """See that a tokenizer is another one with tokens added, every old id as it was.

    Args:
        base: the text of the model's ``tokenizer.json``.
        extended: that of the other.

    Returns:
        The ids that were added, ascending.

    Raises:
        TrainingError: it is not, with the first difference.
    """
    if base == extended:
        return []
    old, new = Tokenizer.from_str(base), Tokenizer.from_str(extended)
    known: dict[str, int] = old.get_vocab(with_added_tokens=True)
    now: dict[str, int] = new.get_vocab(with_added_tokens=True)
    for token, number in sorted(known.items(), key=lambda item: item[1]):
        if now.get(token) != number:
            there = f"has id {now[token]}" if token in now else "is missing"
            raise _other(f"token {token!r}, id {number} in the model's tokenizer, {there}")
    first = max(known.values()) + 1
    added = sorted(number for token, number in now.items() if token not in known)
    if added and added[0] < first:
        raise _other(f"token {new.id_to_token(added[0])!r} was added amid the others")
    # Both through the library, which writes all layouts of one content alike.
    ours, theirs = _rules(old), _rules(new)
    for name in _RULES:
        if ours[name] != theirs[name]:
            raise _other(f"its {name.replace('_', '-')} differs")
    return added


def _rules(tokenizer: Tokenizer) -> dict[str, Any]:
    content = json.loads(tokenizer.to_str())
    return {name: content.get(name) for name in _RULES}


def _other(difference: str) -> TrainingError:
    return TrainingError(
        f"the tokenizer is not that of the model with tokens added: {difference}",
        remedy="prepare the data with the tokenizer.json that train/adopt.py makes of the model's",
    )


def resized_rows(weight: Tensor, new_ids: list[int], known_ids: list[int], size: int) -> Tensor:
    """Give an embedding, or a head, rows for new tokens: the mean of those of known tokens.

    A mean row gives a new token an average place and logit, where a random one, or the unused row
    that many models carry at its id, may be far away from everything.

    Args:
        weight: [rows, width].
        new_ids: ids that the model has never seen.
        known_ids: ids that it has.
        size: rows of the result.

    Returns:
        [size, width]; the rows of known ids as they were.
    """
    mean = weight[[number for number in known_ids if number < weight.shape[0]]].float().mean(0)
    rows = weight.new_empty(size, weight.shape[1])
    kept = min(size, weight.shape[0])
    rows[:kept] = weight[:kept]
    rows[kept:] = mean.to(weight.dtype)
    rows[new_ids] = mean.to(weight.dtype)
    return rows


def resized_vocab(model_rows: int, tokenizer_size: int) -> int:
    """Return how many rows an embedding gets: never fewer, a good multiple."""
    return padded_vocab_size(max(model_rows, tokenizer_size))
