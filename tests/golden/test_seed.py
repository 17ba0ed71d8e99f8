"""The seed's own examples, through the command line, token by token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRETRAIN_TSV = (
    "input\ttarget\n"
    "[BOS] Tôi đang bật đèn\t\tTôi đang bật đèn [EOS]\n"
    "[BOS] Trời hôm nay nóng quá\tTrời hôm nay nóng quá [EOS]\n"
)
REQUEST = "Bật quạt phòng ngủ lên mức 2"
RESPONSE = "Đã bật quạt phòng ngủ lên mức 2"

Run = Callable[..., Any]


def _rows(vnprep: Run, folder: Path) -> list[dict[str, Any]]:
    result = vnprep("inspect", folder, "--json")
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def _pretrain(vnprep: Run, word_level: Callable[..., Path], tmp_path: Path, *options: str) -> Path:
    (tmp_path / "pretrain.tsv").write_text(PRETRAIN_TSV, encoding="utf-8")
    tokenizer = word_level(tmp_path / "t.json", "Tôi đang bật đèn", "Trời hôm nay nóng quá")
    out = tmp_path / "pre"
    result = vnprep(
        "pretrain-tsv", tmp_path / "pretrain.tsv", "--tokenizer", tokenizer, "--out", out, *options
    )
    assert result.code == 0, result.err
    return out


def _finetune(vnprep: Run, word_level: Callable[..., Path], tmp_path: Path, *options: str) -> Path:
    (tmp_path / "pairs.txt").write_text(
        f"Request: {REQUEST}\nResponse: {RESPONSE}\n", encoding="utf-8"
    )
    tokenizer = word_level(tmp_path / "t.json", REQUEST, RESPONSE)
    out = tmp_path / "ft"
    result = vnprep(
        "finetune-pairs", tmp_path / "pairs.txt", "--tokenizer", tokenizer, "--out", out, *options
    )
    assert result.code == 0, result.err
    return out


def test_pretraining_is_next_token_prediction_from_bos_to_eos(
    vnprep: Run, word_level: Callable[..., Path], tmp_path: Path
) -> None:
    first, second = _rows(vnprep, _pretrain(vnprep, word_level, tmp_path))
    assert first["input_pieces"] == ["[BOS]", "Tôi", "đang", "bật", "đèn"]
    assert first["target_pieces"] == ["Tôi", "đang", "bật", "đèn", "[EOS]"]
    assert first["loss_mask"] == [1, 1, 1, 1, 1]
    assert second["input_pieces"] == ["[BOS]", "Trời", "hôm", "nay", "nóng", "quá"]
    assert second["target_pieces"] == ["Trời", "hôm", "nay", "nóng", "quá", "[EOS]"]
    assert (first["line"], second["line"]) == (2, 3)
    offset = second["byte_offset"]
    assert PRETRAIN_TSV.encode()[offset:].startswith("[BOS] Trời".encode())


def test_the_row_with_two_tabs_is_kept_and_noted(
    vnprep: Run, word_level: Callable[..., Path], tmp_path: Path
) -> None:
    out = _pretrain(vnprep, word_level, tmp_path)
    ledger = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["totals"]["ledger"]
    assert ledger == {
        "read": 2,
        "kept": 2,
        "dropped": {},
        "rejected": {},
        "noted": {"extra-tabs": 1},
    }


def test_finetuning_masks_the_request_and_teaches_the_answer_and_its_end(
    vnprep: Run, word_level: Callable[..., Path], tmp_path: Path
) -> None:
    (row,) = _rows(vnprep, _finetune(vnprep, word_level, tmp_path))
    assert row["input_pieces"] == ["[BOS]", *REQUEST.split(), "[SEP]", *RESPONSE.split()]
    assert row["target_pieces"] == ["[PAD]"] * 8 + [*RESPONSE.split(), "[EOS]"]
    assert row["loss_mask"] == [0] * 8 + [1] * 9
    assert len(row["input"]) == len(row["target"]) == len(row["loss_mask"]) == 17


def test_without_eos_loss_the_target_keeps_its_eos_with_mask_0(
    vnprep: Run, word_level: Callable[..., Path], tmp_path: Path
) -> None:
    out = _finetune(vnprep, word_level, tmp_path, "--no-eos-loss")
    (row,) = _rows(vnprep, out)
    assert row["target_pieces"][-1] == "[EOS]"
    assert row["loss_mask"] == [0] * 8 + [1] * 8 + [0]
    assert json.loads((out / "manifest.json").read_text())["config"]["eos_loss"] is False


def test_inspect_tsv_prints_the_seeds_notation_back(
    vnprep: Run, word_level: Callable[..., Path], tmp_path: Path
) -> None:
    pre = _pretrain(vnprep, word_level, tmp_path)
    # The seed's file, but for the second tab of its first row.
    assert vnprep("inspect", pre, "--tsv").out == PRETRAIN_TSV.replace("\t\t", "\t")
    ft = _finetune(vnprep, word_level, tmp_path)
    assert vnprep("inspect", ft, "--tsv").out == (
        f"input\ttarget\n[BOS] {REQUEST} [SEP] {RESPONSE}\t{'[PAD] ' * 8}{RESPONSE} [EOS]\n"
    )


def test_markers_inside_a_text_are_text(vnprep: Run, bpe_path: Path, tmp_path: Path) -> None:
    pairs = [{"request": "In ra [EOS] và [SEP]", "response": "[PAD] [BOS] [EOS]"}]
    source = tmp_path / "pairs.jsonl"
    source.write_text("\n".join(json.dumps(pair) for pair in pairs), encoding="utf-8")
    out = tmp_path / "ft"
    assert vnprep("finetune-pairs", source, "--tokenizer", bpe_path, "--out", out).code == 0
    (row,) = _rows(vnprep, out)
    specials = [piece for piece in row["input"] if piece < 4]
    assert specials == [1, 3], "only the [BOS] and [SEP] that vnprep itself placed"
    assert row["target"].count(2) == 1
    line = vnprep("inspect", out, "--tsv").out.splitlines()[1]
    assert line.split("\t")[0] == "[BOS] In ra [EOS] và [SEP] [SEP] [PAD] [BOS] [EOS]"


def test_a_tokenizer_that_looks_whole_words_up_cannot_smuggle_a_special_token_in(
    vnprep: Run, word_level: Callable[..., Path], tmp_path: Path
) -> None:
    source = tmp_path / "pairs.tsv"
    source.write_text("request\tresponse\nA [EOS] B\tC\nA\tC\n", encoding="utf-8")
    tokenizer = word_level(tmp_path / "t.json", "A B C")
    out = tmp_path / "ft"
    assert vnprep("finetune-pairs", source, "--tokenizer", tokenizer, "--out", out).code == 0
    ledger = json.loads((out / "manifest.json").read_text())["totals"]["ledger"]
    assert ledger["rejected"] == {"special-token-in-text": 1}
    assert ledger["kept"] == 1


def test_no_merge_crosses_the_seam(vnprep: Run, bpe_path: Path, tmp_path: Path) -> None:
    from vnprep.tokenizer.load import load_tokenizer

    source = tmp_path / "pairs.tsv"
    source.write_text("request\tresponse\nBật quạt phòng ng\tủ lên mức\n", encoding="utf-8")
    out = tmp_path / "ft"
    assert vnprep("finetune-pairs", source, "--tokenizer", bpe_path, "--out", out).code == 0
    (row,) = _rows(vnprep, out)
    backend = load_tokenizer(bpe_path).backend
    request = backend.encode("Bật quạt phòng ng", add_special_tokens=False).ids
    response = backend.encode("ủ lên mức", add_special_tokens=False).ids
    assert row["input"] == [1, *request, 3, *response]


def test_text_is_nfc_before_it_is_tokenised(vnprep: Run, bpe_path: Path, tmp_path: Path) -> None:
    import unicodedata

    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, f"request\tresponse\n{REQUEST}\t{RESPONSE}\n")
        (tmp_path / f"{form}.tsv").write_text(text, encoding="utf-8")
        out = tmp_path / form
        source = tmp_path / f"{form}.tsv"
        assert vnprep("finetune-pairs", source, "--tokenizer", bpe_path, "--out", out).code == 0
    composed, decomposed = (_rows(vnprep, tmp_path / form)[0] for form in ("NFC", "NFD"))
    assert composed["input"] == decomposed["input"]
