"""Other architectures: documents kept apart or refused, rows for new tokens, saved, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from adopt import complete_tokenizer
from adopt import main as adopt_command
from export import export
from modeling.foreign import ForeignCausalLM, check_isolation, fresh
from modeling.foreign_config import ForeignConfig, fitted, read_foreign
from modeling.start import adopt_foreign, start_config
from modeling.weights import load_model, save_model
from tests.train.foreign import hf_config, write_hf
from vnprep.errors import TrainingError
from vnprep.tokenizer.load import LoadedTokenizer

SMALL: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "Mistral": {"sliding_window": None},
    "Gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64},
    "Phi": {"num_key_value_heads": 4},
}
KINDS = sorted(SMALL)


def small_config(kind: str, **changes: Any) -> Any:
    if kind == "GPT2":
        import transformers

        special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        values = {"vocab_size": 310, "initializer_range": 0.2, **SMALL[kind], **special}
        return transformers.GPT2Config(**(values | changes))
    return hf_config(kind, **(SMALL[kind] | changes))


def foreign(folder: Path, kind: str, **changes: Any) -> tuple[Any, ForeignCausalLM, Any]:
    """Return transformers' model, ours of it, and the tokenizer with its new tokens."""
    theirs = write_hf(folder, small_config(kind, **changes))
    tokenizer, _ = complete_tokenizer(folder, {})
    return theirs, adopt_foreign(folder, tokenizer).eval(), tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_packed_documents_give_the_losses_that_they_give_alone(tmp_path: Path, kind: str) -> None:
    theirs, ours, _ = foreign(tmp_path, kind)
    check_isolation(ours, 64)
    assert ours.config.vocab_size == 384
    first, second = torch.randint(0, 300, (1, 20)), torch.randint(0, 300, (1, 13))
    row = torch.cat([first, second, torch.zeros(1, 3, dtype=torch.long)], 1)
    positions = torch.cat([torch.arange(20), torch.arange(13), torch.zeros(3)])[None].long()
    documents = torch.tensor([0] * 20 + [1] * 13 + [-1] * 3)[None]
    labels = torch.where(documents >= 0, row.roll(-1, 1), -100)
    labels[0, [19, 32]] = -100
    with torch.no_grad():
        logits = ours(row, positions, documents)
        for ids, part in ((first, slice(0, 20)), (second, slice(20, 33))):
            wanted = theirs(ids).logits
            torch.testing.assert_close(logits[:, part, :301], wanted[..., :301], rtol=0, atol=1e-5)
        nll = ours(row, positions, documents, labels)
        alone = sum(float(ours(ids[:, :-1], labels=ids[:, 1:])) for ids in (first, second))
        assert float(nll) == pytest.approx(alone, abs=1e-3)
        leaking = ours(row, positions, torch.zeros_like(documents))
        assert (leaking - logits)[:, 20:33].abs().max() > 0.01, "the test can fail"
        assert float(ours(row, positions, documents, torch.full_like(row, -100))) == 0


def test_a_model_that_lets_documents_see_each_other_is_refused(tmp_path: Path) -> None:
    _, ours, _ = foreign(tmp_path, "Mistral")
    plain = ours.hf.forward

    def deaf(**inputs: Any) -> Any:
        # From positions alone transformers would find the documents, in this architecture.
        return plain(input_ids=inputs["input_ids"], use_cache=False)

    ours.hf.forward = deaf
    with pytest.raises(TrainingError, match="packed into one row would see each other in mistral"):
        check_isolation(ours, 64)


def test_a_recurrent_model_is_refused() -> None:
    """Its state goes on from document to document, and no mask of ours means anything to it."""
    content = '{"model_type":"mamba","vocab_size":384,"hidden_size":32,"num_hidden_layers":2,'
    content += '"state_size":4,"expand":2,"time_step_rank":2,"initializer_range":0.2}'
    config = ForeignConfig(384, 32, 64, 2, 1, 1, 128, model_type="mamba", content=content)
    torch.manual_seed(0)
    with pytest.raises(TrainingError, match=r"in mamba: it fails on packed rows"):
        check_isolation(fresh(config), 64)


def written(folder: Path, config: Any) -> ForeignConfig:
    config.save_pretrained(folder)
    return read_foreign(folder)


def test_small_weights_do_not_hide_what_documents_tell_each_other(tmp_path: Path) -> None:
    """A convolution over positions, whose trace in a fresh model's logits is faint."""
    import transformers

    config = transformers.Lfm2Config(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.01,
        layer_types=["conv", "full_attention"],
        architectures=["Lfm2ForCausalLM"],
    )
    torch.manual_seed(0)
    with pytest.raises(TrainingError, match="would see each other"):
        check_isolation(fresh(written(tmp_path, config)), 64)


def test_positions_that_follow_the_longest_document_are_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
        architectures=["LlamaForCausalLM"],
    )
    model = fresh(written(tmp_path, config))
    check_isolation(model, 128)
    with pytest.raises(TrainingError, match=r"--seq-len 128 or less"):
        check_isolation(model, 256)


def test_new_tokens_get_mean_rows(tmp_path: Path) -> None:
    theirs, ours, tokenizer = foreign(tmp_path, "Mistral", tie_word_embeddings=False)
    for got, old in (
        (ours.hf.get_input_embeddings().weight, theirs.get_input_embeddings().weight),
        (ours.hf.get_output_embeddings().weight, theirs.get_output_embeddings().weight),
    ):
        torch.testing.assert_close(got[:301], old[:301], rtol=0, atol=0)
        torch.testing.assert_close(got[tokenizer.special.sep], old[:301].mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_exported(tmp_path: Path, kind: str) -> None:
    import transformers

    _, ours, tokenizer = foreign(tmp_path / "hf", kind)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.text)
    save(tmp_path / "model", ours, tokenizer, path)
    loaded = load_model(tmp_path / "model")
    assert loaded.config == start_config(tmp_path / "model", tokenizer)
    ids = torch.randint(0, 300, (2, 12))
    with torch.no_grad():
        wanted = ours(ids)
        torch.testing.assert_close(loaded.model.eval()(ids), wanted, rtol=0, atol=1e-6)
        with pytest.raises(TrainingError, match="not asked from here"):
            loaded.answering()
        export(loaded, tmp_path / "out")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        size = tokenizer.vocab_size
        assert again.config.vocab_size == size
        torch.testing.assert_close(again(ids).logits, wanted[..., :size], rtol=0, atol=1e-5)


def save(folder: Path, model: ForeignCausalLM, tokenizer: LoadedTokenizer, path: Path) -> None:
    save_model(
        folder,
        model.config,
        model.state_dict(),
        path,
        tokenizer.special,
        tokenizer.fingerprint,
        "finetune",
    )


def test_what_a_configuration_tells(tmp_path: Path) -> None:
    small_config("GPT2").save_pretrained(tmp_path / "gpt2")
    small_config("Gemma2").save_pretrained(tmp_path / "gemma2")
    gpt2, gemma2 = read_foreign(tmp_path / "gpt2"), read_foreign(tmp_path / "gemma2")
    assert (gpt2.hidden_size, gpt2.num_hidden_layers, gpt2.max_position_embeddings) == (32, 2, 128)
    assert (gpt2.head_dim, gpt2.tie_word_embeddings, gpt2.window) == (8, True, 0)
    assert (gemma2.window, gemma2.num_key_value_heads) == (64, 2)
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(TrainingError, match="transformers cannot read it"):
        read_foreign(tmp_path)


def test_weights_that_are_missing_are_not_drawn_anew(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_hf(tmp_path, small_config("Mistral"))
    tokenizer, _ = complete_tokenizer(tmp_path, {})
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"1 weights are missing: model\.layers\.1"):
        adopt_foreign(tmp_path, tokenizer)


def test_adopting_another_architecture_is_of_its_tokenizer_alone(tmp_path: Path) -> None:
    write_hf(tmp_path / "hf", small_config("GPT2"))
    arguments = [str(tmp_path / "hf"), "--out", str(tmp_path / "t")]
    refused = CliRunner().invoke(adopt_command, arguments)
    assert refused.exit_code == 1 and "neither a Llama nor a Qwen3" in refused.output
    done = CliRunner().invoke(adopt_command, [*arguments, "--tokenizer-only"])
    assert done.exit_code == 0, done.output
    assert f"--init {tmp_path / 'hf'} --model-impl hf" in done.output


def test_from_nothing(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    small_config("GPT2").save_pretrained(tmp_path)
    config = fitted(read_foreign(tmp_path), tokenizer.vocab_size, tokenizer.special)
    model = fresh(config)
    assert model.hf.get_input_embeddings().weight.shape[0] == config.vocab_size == 384
    check_isolation(model, 64)
