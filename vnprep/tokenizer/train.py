"""Train a ByteLevel BPE tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vnprep.durable import readable_json
from vnprep.errors import TokenizerError
from vnprep.tokenizer.special import SPECIAL_TOKENS
from vnprep.vietnamese.normalize import to_nfc

#: 256 bytes and the four special tokens: nothing can be left out below this.
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)

# The pre-tokenizer of the Qwen2 family: words with their leading space, and every digit alone,
# so that a model can copy numbers it never saw. A known pattern keeps other programs able to
# load the tokenizer. Source: tokenizer.json of Qwen2.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a vocabulary that cannot hold every byte.

    Raises:
        TokenizerError: it is too small.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} cannot hold the 256 bytes and 4 special tokens",
            remedy=f"--vocab-size {SMALLEST_VOCABULARY} or more; 8000 to 64000 is usual",
        )


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, show_progress: bool = False
) -> Tokenizer:
    """Train on texts; the special tokens get ids 0 to 3.

    Args:
        texts: read once.
        vocab_size: special tokens and the 256 bytes included. The result has fewer when the
            texts do not hold enough different pairs.
        show_progress: draw the trainer's own progress bars on stderr.

    Raises:
        TokenizerError: the vocabulary is too small to hold every byte.
    """
    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=show_progress,
    )
    # Nearly all text is NFC already, which is quickly seen; the normalizer of the tokenizer would
    # work through every character, so it is put in only when the training is over.
    tokenizer.train_from_iterator(map(to_nfc, texts), trainer=trainer)
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def to_text(tokenizer: Tokenizer) -> str:
    """Return the text of the ``tokenizer.json``, in a layout that never varies."""
    import json

    return readable_json(json.loads(tokenizer.to_str()))
