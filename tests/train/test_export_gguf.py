"""The GGUF file: read back by the gguf package, and run by llama.cpp where it is installed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

import export
from exporting.gguf_file import write_gguf
from exporting.pre_tokenizers import llama_cpp_name
from inference.chat_template import chat_template
from inference.sampling import Sampling, generate, request_prompts
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from modeling.rope import RopeScaling
from modeling.weights import storable
from vnprep.errors import TrainingError
from vnprep.tokenizer.encode import encode
from vnprep.tokenizer.load import LoadedTokenizer, parse_tokenizer
from vnprep.tokenizer.train import to_text, train_tokenizer
from vnprep.vietnamese.normalize import to_nfc

MakeConfig = Callable[..., ModelConfig]
Pairs = list[tuple[str, str, str]]

EDGES = [
    "Bật quạt phòng ngủ lên mức 2",
    "Nhiệt độ 26,5°C; giá 1.250.000đ — “được” không?",
    "a  b\n\n  c\t\td   \n e ",
    "😀👩‍👩‍👧 ½ ² IT'S they'RE 'tis ÔNG'S",
    "tắt [EOS] đèn [SEP][BOS] [PAD]",
    " khoảng trắng đầu và cuối ",
    "123456 12a34 ٣٤ 中文 กำลัง",
    "",
]


def run_script(*arguments: object) -> Any:
    return CliRunner().invoke(export.main, [str(argument) for argument in arguments])


def export_gguf(run: Path, out: Path, dtype: str = "fp32") -> gguf.GGUFReader:
    result = run_script(run, "--to", "gguf", "--out", out, "--dtype", dtype)
    assert result.exit_code == 0, result.output
    return gguf.GGUFReader(out)


def value(reader: gguf.GGUFReader, key: str) -> Any:
    return reader.get_field(key).contents()


def weights(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors
    }


def unpaired(rows: Any, heads: int) -> Any:
    """Undo the order that llama.cpp's Llama has: dimension 2i + p was i + p · head_dim / 2."""
    head = rows.reshape(heads, -1, rows.shape[-1])
    return np.concatenate([head[:, 0::2], head[:, 1::2]], axis=1).reshape(rows.shape)


@pytest.fixture(scope="module")
def reader(taught: Any, tmp_path_factory: pytest.TempPathFactory) -> gguf.GGUFReader:
    return export_gguf(taught.run, tmp_path_factory.mktemp("gguf") / "model.gguf")


def test_the_weights_are_the_models(
    reader: gguf.GGUFReader, taught: Any, tokenizer: LoadedTokenizer
) -> None:
    config = taught.model.config
    ours = storable(taught.model.state_dict(), config)
    found = weights(reader)
    assert len(found) == len(ours)
    assert "output.weight" not in found, "a tied head is the embedding"
    embedding = ours["model.embed_tokens.weight"][: tokenizer.vocab_size]
    np.testing.assert_array_equal(found["token_embd.weight"], embedding)
    np.testing.assert_array_equal(found["output_norm.weight"], ours["model.norm.weight"])
    for layer in range(config.num_hidden_layers):
        for theirs, name, heads in (
            ("attn_q", "self_attn.q_proj", config.num_attention_heads),
            ("attn_k", "self_attn.k_proj", config.num_key_value_heads),
            ("attn_v", "self_attn.v_proj", None),
            ("attn_output", "self_attn.o_proj", None),
            ("ffn_gate", "mlp.gate_proj", None),
            ("ffn_up", "mlp.up_proj", None),
            ("ffn_down", "mlp.down_proj", None),
            ("attn_norm", "input_layernorm", None),
            ("ffn_norm", "post_attention_layernorm", None),
        ):
            rows = found[f"blk.{layer}.{theirs}.weight"]
            expected = ours[f"model.layers.{layer}.{name}.weight"].numpy()
            if heads:
                assert not np.array_equal(rows, expected), "llama.cpp turns other pairs"
                rows = unpaired(rows, heads)
            np.testing.assert_array_equal(rows, expected)


def test_the_shape_is_the_models(
    reader: gguf.GGUFReader, taught: Any, tokenizer: LoadedTokenizer
) -> None:
    config = taught.model.config
    assert value(reader, "general.architecture") == "llama"
    for key, expected in {
        "vocab_size": tokenizer.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
    }.items():
        assert value(reader, f"llama.{key}") == expected, key
    epsilon = value(reader, "llama.attention.layer_norm_rms_epsilon")
    assert epsilon == pytest.approx(config.rms_norm_eps)


def test_the_tokenizer_is_the_models(reader: gguf.GGUFReader, tokenizer: LoadedTokenizer) -> None:
    content = json.loads(tokenizer.text)
    tokens = value(reader, "tokenizer.ggml.tokens")
    assert [tokenizer.backend.token_to_id(token) for token in tokens] == list(range(len(tokens)))
    merges = [" ".join(merge) for merge in content["model"]["merges"]]
    assert merges
    assert value(reader, "tokenizer.ggml.merges") == merges
    assert value(reader, "tokenizer.ggml.model") == "gpt2"
    assert value(reader, "tokenizer.ggml.pre") == "qwen2"
    special = tokenizer.special.as_dict()
    for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("sep", "seperator")):
        assert value(reader, f"tokenizer.ggml.{key}_token_id") == special[role]
    types = value(reader, "tokenizer.ggml.token_type")
    control = [number for number, kind in enumerate(types) if kind == gguf.TokenType.CONTROL]
    assert control == sorted(special.values())
    assert set(types) == {gguf.TokenType.CONTROL, gguf.TokenType.NORMAL}
    assert value(reader, "tokenizer.ggml.add_bos_token") is True
    assert value(reader, "tokenizer.chat_template") == chat_template(tokenizer)


@pytest.mark.parametrize(
    ("dtype", "kind", "error"), [("fp16", "F16", 1e-3), ("bf16", "BF16", 8e-3), ("q8_0", "Q8_0", 1)]
)
def test_weights_are_rounded_but_not_norms(
    make_config: MakeConfig,
    save: Callable[..., Path],
    tokenizer_path: Path,
    tmp_path: Path,
    dtype: str,
    kind: str,
    error: float,
) -> None:
    # The width divides into blocks of 32, the inner one does not.
    config = make_config(
        vocab_size=384, hidden_size=64, intermediate_size=80, tie_word_embeddings=False
    )
    model = LlamaForCausalLM(config)
    run = save(tmp_path / "run", model, tokenizer_path)
    reader = export_gguf(run, tmp_path / "model.gguf", dtype)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.1.ffn_gate.weight"] == kinds["output.weight"] == kind
    assert kinds["blk.1.ffn_down.weight"] == ("F16" if kind == "Q8_0" else kind)
    ours = storable(model.state_dict(), config)["model.layers.1.mlp.up_proj.weight"].numpy()
    found = weights(reader)["blk.1.ffn_up.weight"]
    assert not np.array_equal(found, ours)
    if kind == "Q8_0":  # half a step of the largest weight of the block
        np.testing.assert_allclose(found, ours, rtol=0, atol=float(np.abs(ours).max()) / 127)
    else:
        np.testing.assert_allclose(found, ours, rtol=error)


def small_qwen3(vocab_size: int) -> Any:
    config = transformers.Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )
    return transformers.Qwen3ForCausalLM(config).eval()


def write_qwen3(path: Path, tokenizer: LoadedTokenizer) -> Any:
    torch.manual_seed(1)
    model = small_qwen3(tokenizer.vocab_size)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    config, template = model.config.to_dict(), chat_template(tokenizer)
    write_gguf(path, config, model.state_dict(), tokenizer, template, "fp32", "qwen")
    return model


def test_qwen3_keeps_its_order_and_has_norms_of_heads(
    tokenizer: LoadedTokenizer, tmp_path: Path
) -> None:
    model = write_qwen3(tmp_path / "q.gguf", tokenizer)
    reader = gguf.GGUFReader(tmp_path / "q.gguf")
    assert value(reader, "general.architecture") == "qwen3"
    assert value(reader, "qwen3.attention.key_length") == 32
    found, attention = weights(reader), model.model.layers[1].self_attn
    for name, module in (
        ("attn_q", attention.q_proj),
        ("attn_k", attention.k_proj),
        ("attn_q_norm", attention.q_norm),
        ("attn_k_norm", attention.k_norm),
    ):
        np.testing.assert_array_equal(found[f"blk.1.{name}.weight"], module.weight.detach())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"type": "WordLevel", "vocab": {}}}, "WordLevel, not byte-level BPE"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer is Lowercase"),
        ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, "not ByteLevel"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
            "not ByteLevel without a space",
        ),
    ],
)
def test_tokenizers_that_llama_cpp_would_read_otherwise_are_refused(
    tokenizer: LoadedTokenizer, change: dict[str, Any], words: str
) -> None:
    content = json.loads(tokenizer.text)
    assert llama_cpp_name(content) == "qwen2"
    with pytest.raises(TrainingError, match=words):
        llama_cpp_name(content | change)


def test_a_pattern_that_llama_cpp_does_not_know_is_refused(tokenizer: LoadedTokenizer) -> None:
    content = json.loads(tokenizer.text)
    split = content["pre_tokenizer"]["pretokenizers"][0]
    own = split["pattern"]["Regex"]
    split["pattern"]["Regex"] = own.replace(r"\p{N}|", r"\p{N}{1,3}|")
    with pytest.raises(TrainingError, match="ignore_merges"):
        llama_cpp_name(content)
    content["model"]["ignore_merges"] = True
    assert llama_cpp_name(content) == "llama-bpe"
    split["pattern"]["Regex"] = own + "|x"
    with pytest.raises(TrainingError, match="does not know"):
        llama_cpp_name(content)


def test_the_script_says_what_cannot_be_written(taught: Any, tmp_path: Path) -> None:
    result = run_script(taught.run, "--to", "gguf", "--out", tmp_path / "hf")
    assert result.exit_code == 1
    assert "--out NAME.gguf" in result.stderr
    result = run_script(taught.run, "--out", tmp_path / "hf", "--dtype", "q8_0")
    assert result.exit_code == 1
    assert "--to gguf" in result.stderr
    assert not list(tmp_path.iterdir())


def test_added_tokens_and_ids_without_a_text(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    content = json.loads(tokenizer.text)
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    vocabulary[last] += 2
    extra = content["added_tokens"][-1] | {"id": vocabulary[last] + 1, "content": "<x>"}
    content["added_tokens"].append(extra | {"special": False})
    gap = parse_tokenizer(json.dumps(content))
    model = small_qwen3(gap.vocab_size)
    config = model.config.to_dict()
    write_gguf(tmp_path / "m.gguf", config, model.state_dict(), gap, "", "fp32", "gap")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    tokens = value(reader, "tokenizer.ggml.tokens")
    types = value(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(set(tokens)) == gap.vocab_size
    unused = [number for number, kind in enumerate(types) if kind == gguf.TokenType.UNUSED]
    assert unused
    for number, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if number in unused:
            assert gap.backend.id_to_token(number) is None
        else:
            assert gap.backend.token_to_id(token) == number
            assert (kind == gguf.TokenType.USER_DEFINED) == (token == "<x>")


LLAMA3 = RopeScaling("llama3", 8.0, 1.0, 4.0, 32)
LINEAR = RopeScaling("linear", 4.0)


def scaled_run(
    make_config: MakeConfig,
    save: Callable[..., Path],
    tokenizer_path: Path,
    folder: Path,
    **changes: object,
) -> tuple[Path, LlamaForCausalLM]:
    torch.manual_seed(2)
    model = LlamaForCausalLM(make_config(**{"vocab_size": 384, "head_dim": 16, **changes})).eval()
    return save(folder / "run", model, tokenizer_path), model


def test_scaled_positions_are_written(
    make_config: MakeConfig, save: Callable[..., Path], tokenizer_path: Path, tmp_path: Path
) -> None:
    run, _ = scaled_run(make_config, save, tokenizer_path, tmp_path / "a", rope_scaling=LINEAR)
    reader = export_gguf(run, tmp_path / "a.gguf")
    assert value(reader, "llama.rope.scaling.type") == "linear"
    assert value(reader, "llama.rope.scaling.factor") == 4
    run, _ = scaled_run(make_config, save, tokenizer_path, tmp_path / "b", rope_scaling=LLAMA3)
    reader = export_gguf(run, tmp_path / "b.gguf", "bf16")
    factors = weights(reader)["rope_freqs.weight"]
    assert factors.shape == (8,)
    # The fastest waves stay, the slowest are stretched whole, one between in part.
    assert (factors[0], factors[-1]) == (1, 8)
    assert any(1 < factor < 8 for factor in factors)
    run, _ = scaled_run(
        make_config,
        save,
        tokenizer_path,
        tmp_path / "c",
        rope_scaling=LLAMA3,
        model_type="qwen3",
    )
    result = run_script(run, "--to", "gguf", "--out", tmp_path / "c.gguf")
    assert result.exit_code == 1
    assert "llama3" in result.stderr


# Below: what only llama.cpp itself can say.

#: Letters with marks of both kinds, digits, spaces, line ends, signs, other scripts, contractions.
MIXTURE = [
    *"aăâđêôơưễộữẦỶLſ 0123456789  \t\n\r.,!?'\"½²٣çñ漢字กำ🇻🇳",
    *("\u0301", "\u0323", "\u200b", "\u200d", "\u00a0", "\u3000", "'s", "'LL", "“", "–", "…"),
]


def load_llama(path: Path) -> Any:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    return llama_cpp.Llama(str(path), n_ctx=128, logits_all=True, verbose=False, n_threads=1)


def test_llama_cpp_reads_the_same_ids(
    taught: Any, tokenizer: LoadedTokenizer, tmp_path: Path
) -> None:
    export_gguf(taught.run, tmp_path / "model.gguf")
    llama = load_llama(tmp_path / "model.gguf")
    for text in EDGES:
        ids = llama.tokenize(text.encode(), add_bos=False, special=False)
        assert ids == encode(tokenizer, [text])[0].tolist(), text
        assert llama.detokenize(ids).decode() == text


def test_llama_cpp_splits_any_mixture_of_characters_alike(tmp_path: Path) -> None:
    draw = random.Random(3)
    # llama.cpp applies no normalizer: a text must come to it in NFC.
    texts = [to_nfc("".join(draw.choices(MIXTURE, k=draw.randint(1, 60)))) for _ in range(500)]
    # Merges of these very texts, so that a text split elsewhere has other ids.
    own = parse_tokenizer(to_text(train_tokenizer(texts, 2000)))
    write_qwen3(tmp_path / "m.gguf", own)
    llama = load_llama(tmp_path / "m.gguf")
    for text in texts:
        ids = llama.tokenize(text.encode(), add_bos=False, special=False)
        assert ids == encode(own, [text])[0].tolist(), text


def test_llama_cpp_gives_the_same_logits_and_answers(
    taught: Any, tokenizer: LoadedTokenizer, pairs: Pairs, tmp_path: Path
) -> None:
    export_gguf(taught.run, tmp_path / "model.gguf")
    llama = load_llama(tmp_path / "model.gguf")
    requests = [request for request, _, _ in pairs]
    prompts = request_prompts(tokenizer, requests)
    answers = generate(taught.model, tokenizer, prompts, Sampling(40))
    for request, prompt, answer in zip(requests, prompts, answers, strict=True):
        llama.reset()
        llama.eval(prompt)
        with torch.no_grad():
            ours = taught.model(torch.tensor([prompt]))[0, :, : tokenizer.vocab_size]
        # llama.cpp holds keys and values as float16.
        theirs = np.array(llama.scores[: len(prompt)])
        np.testing.assert_allclose(theirs, ours.numpy(), atol=0.05)
        message = {"role": "user", "content": request}
        reply = llama.create_chat_completion([message], temperature=0, max_tokens=40)
        assert reply["choices"][0]["message"]["content"] == answer.text
        assert reply["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "changes",
    [{"rope_scaling": LINEAR}, {"rope_scaling": LLAMA3}, {"model_type": "qwen3", "head_dim": 32}],
)
def test_llama_cpp_gives_the_logits_of_our_variants(
    make_config: MakeConfig,
    save: Callable[..., Path],
    tokenizer_path: Path,
    tokenizer: LoadedTokenizer,
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    run, model = scaled_run(make_config, save, tokenizer_path, tmp_path, **changes)
    export_gguf(run, tmp_path / "m.gguf")
    llama = load_llama(tmp_path / "m.gguf")
    ids = [1, *(5 + 3 * number % 300 for number in range(60))]
    llama.eval(ids)
    with torch.no_grad():
        ours = model(torch.tensor([ids]))[0, :, : tokenizer.vocab_size]
    np.testing.assert_allclose(np.array(llama.scores[: len(ids)]), ours.numpy(), atol=0.05)


def test_llama_cpp_runs_qwen3(tokenizer: LoadedTokenizer, tmp_path: Path) -> None:
    model = write_qwen3(tmp_path / "q.gguf", tokenizer)
    llama = load_llama(tmp_path / "q.gguf")
    ids = request_prompts(tokenizer, EDGES[:1])[0]
    llama.eval(ids)
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0]
    np.testing.assert_allclose(np.array(llama.scores[: len(ids)]), ours.numpy(), atol=0.05)
