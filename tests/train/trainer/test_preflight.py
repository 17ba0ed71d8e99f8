"""What is refused before a weight is made or a file is written, and with which words."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.model import LlamaForCausalLM
from modeling.presets import load_config
from modeling.weights import save_model
from tests.train.foreign import hf_config
from trainer.options import TrainOptions
from trainer.preflight import Plan, prepare
from trainer.schedule import Warmup
from vnprep.errors import OutputError, ShardError, TrainingError
from vnprep.loading.loader import PackedLoader
from vnprep.packing.file import pack_shards, write_pack
from vnprep.shards.manifest import Manifest
from vnprep.shards.read import ShardSet

CPU = Path(__file__).parents[3] / "ds_configs" / "cpu.json"
MakeData = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def quiet_import() -> None:
    """Import DeepSpeed once; the warnings of its own imports are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed  # noqa: F401


@pytest.fixture
def options(tmp_path: Path, make_data: MakeData) -> TrainOptions:
    """Options of a run that is possible: 30 documents of 10 tokens."""
    data = make_data(tmp_path / "data", [[[5] * 10] for _ in range(30)], stage="pretrain")
    return TrainOptions(
        stage="pretrain",
        data=(data,),
        mix=None,
        out=tmp_path / "run",
        deepspeed_config=CPU,
        model="tiny",
        init=None,
        lora=None,
        lora_alpha=None,
        lora_targets=None,
        lora_dropout=0.0,
        lora_embeddings=None,
        steps=20,
        epochs=None,
        seq_len=None,
        micro_batch=None,
        accumulation=None,
        lr=1e-3,
        min_lr_ratio=0.1,
        warmup=Warmup(0.05, is_share=True),
        schedule="cosine",
        weight_decay=0.1,
        betas=(0.9, 0.95),
        grad_clip=1.0,
        spike_factor=20.0,
        max_bad_steps=10,
        seed=0,
        valid=None,
        eval_every=0,
        sample_prompt=(),
        sample_prompts=None,
        sample_every=None,
        sample_tokens=48,
        save_every=0,
        keep_last=2,
        keep_every=0,
        resume="auto",
        log_every=10,
        tensorboard=False,
        peak_tflops=None,
        compile=None,
        compile_backend="inductor",
        threads=None,
        data_check="full",
    )


@pytest.fixture
def finetuning(options: TrainOptions, tmp_path: Path, make_data: MakeData) -> TrainOptions:
    """Options of fine-tuning from a fresh model over the same tokenizer."""
    manifest = Manifest.read(options.data[0])
    special = manifest.tokenizer.special
    config = load_config("tiny", manifest.tokenizer.vocab_size, special)
    save_model(
        tmp_path / "pre" / "model",
        config,
        LlamaForCausalLM(config).state_dict(),
        options.data[0] / "tokenizer.json",
        special,
        manifest.tokenizer.fingerprint,
        "pretrain",
    )
    pairs = make_data(tmp_path / "pairs", [[[5] * 6, [6] * 7] for _ in range(30)])
    return replace(
        options, stage="finetune", model=None, init=tmp_path / "pre", data=(pairs,), steps=None,
        epochs=3,
    )  # fmt: skip


def plan_of(options: TrainOptions, **changes: Any) -> Plan:
    return prepare(replace(options, **changes), 0, 1, hashes=True)


def test_a_possible_run_is_planned_and_nothing_is_written(options: TrainOptions) -> None:
    plan = plan_of(options)
    assert plan.steps == 20
    assert plan.loader.seq_len == 256
    assert plan.deepspeed["gradient_clipping"] == 1.0
    assert not options.out.exists()


def test_epochs_become_steps(options: TrainOptions) -> None:
    # 30 rows of 11 positions, two to a packed row of 24: 15 packed rows, 8 a step.
    plan = plan_of(options, steps=None, epochs=5, seq_len=24)
    assert isinstance(plan.loader, PackedLoader)
    assert (plan.loader.packed_rows, plan.loader.steps_per_epoch, plan.steps) == (15, 2, 10)


def test_a_finetuning_run_takes_the_longest_row(finetuning: TrainOptions) -> None:
    # [BOS] 6 [SEP] 7 [EOS], shifted: 15 positions, rounded up to 16.
    assert plan_of(finetuning).loader.seq_len == 16


def test_the_validation_rows_count_for_the_length_too(
    finetuning: TrainOptions, tmp_path: Path, make_data: MakeData
) -> None:
    valid = make_data(tmp_path / "valid", [[[5] * 20, [6] * 20]])
    plan = plan_of(finetuning, valid=valid)
    assert plan.loader.seq_len == 48
    assert plan.valid_loader is not None and plan.valid_loader.steps_per_epoch == 1


def test_pretraining_data_are_refused_for_finetuning(
    options: TrainOptions, finetuning: TrainOptions
) -> None:
    with pytest.raises(TrainingError, match="holds pretraining data, this is fine-tuning") as info:
        plan_of(finetuning, data=options.data)
    assert "train/pretrain.py" in info.value.remedy
    with pytest.raises(TrainingError, match="holds fine-tuning data, this is pretraining"):
        plan_of(options, data=finetuning.data)


def test_several_data_sets_are_mixed(
    options: TrainOptions, tmp_path: Path, make_data: MakeData
) -> None:
    more = make_data(tmp_path / "more", [[[7] * 10] for _ in range(12)], stage="pretrain")
    both = {"data": (*options.data, more), "mix": (0.75, 0.25)}
    plan = plan_of(options, seq_len=24, **both)
    # 15 packed rows and 6: the epoch of the mixture has them all, 8 a step.
    assert (plan.loader.steps_per_epoch, len(plan.sets)) == (3, 2)
    shown = [n for step in range(10) for batch in plan.loader.step(step) for n in batch.sample_ids]
    assert (sum(n < 15 for n in shown), len(shown)) == (60, 80)
    alone = plan_of(options, seq_len=24)
    assert plan.settings["data"][0] == alone.settings["data"]
    assert plan.settings["mix"] == [0.75, 0.25] and "mix" not in alone.settings
    other = plan_of(options, seq_len=24, **(both | {"mix": (0.5, 0.5)}))
    assert other.settings != plan.settings


def test_data_sets_of_two_tokenizers_or_stages_are_not_mixed(
    options: TrainOptions, finetuning: TrainOptions, tmp_path: Path, make_data: MakeData
) -> None:
    other = make_data(tmp_path / "other", [[[5] * 9]], stage="pretrain", words=50)
    with pytest.raises(TrainingError, match=r"another tokenizer .* than the first --data"):
        plan_of(options, data=(*options.data, other), mix=(1.0, 1.0))
    with pytest.raises(TrainingError, match="holds fine-tuning data, this is pretraining"):
        plan_of(options, data=(*options.data, *finetuning.data), mix=(1.0, 1.0))


def test_the_longest_row_of_all_data_sets_counts(
    finetuning: TrainOptions, tmp_path: Path, make_data: MakeData
) -> None:
    more = make_data(tmp_path / "more", [[[5] * 20, [6] * 20]])
    plan = plan_of(finetuning, data=(*finetuning.data, more), mix=(1.0, 1.0))
    assert plan.loader.seq_len == 48


def test_a_pack_index_is_used_and_changes_nothing(options: TrainOptions) -> None:
    without = plan_of(options, seq_len=24)
    shards = ShardSet.open(options.data[0])
    write_pack(shards, pack_shards(shards, 24))
    plan = plan_of(options, seq_len=24)
    assert isinstance(plan.loader, PackedLoader) and plan.loader.indexed
    assert plan.settings == without.settings
    assert plan.loader.step(1)[0].sample_ids == without.loader.step(1)[0].sample_ids


def test_data_that_do_not_verify_are_refused(options: TrainOptions) -> None:
    shard = next(options.data[0].glob("*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ShardError, match="its bytes changed"):
        plan_of(options)
    plan_of(options, data_check="sizes")  # the user's choice: sizes alone
    shard.write_bytes(content[:-8])
    with pytest.raises(ShardError, match="bytes, the manifest says"):
        plan_of(options, data_check="sizes")


def test_another_tokenizer_than_the_models_is_refused(
    finetuning: TrainOptions, tmp_path: Path, make_data: MakeData
) -> None:
    other = make_data(tmp_path / "other", [[[5], [6]]], words=50)
    with pytest.raises(TrainingError, match=r"another tokenizer .* than the model of --init"):
        plan_of(finetuning, data=(other,))
    with pytest.raises(TrainingError, match=r"another tokenizer .* than the training data"):
        plan_of(finetuning, valid=other)


def test_validation_data_of_the_other_stage_are_refused(
    options: TrainOptions, finetuning: TrainOptions
) -> None:
    with pytest.raises(TrainingError, match="holds pretraining data"):
        plan_of(finetuning, valid=options.data[0])


def test_an_init_that_holds_no_model_is_refused(finetuning: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        plan_of(finetuning, init=tmp_path / "nowhere")


def test_an_unknown_model_is_refused(options: TrainOptions) -> None:
    with pytest.raises(TrainingError, match="did you mean 'tiny'"):
        plan_of(options, model="tinny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"lora": 4}, "--lora: a model of transformers does not do this here"),
        ({"sample_prompt": ("w5",)}, "--sample-prompt: a model of transformers does not"),
        ({"seq_len": 96}, "layers of this model see 64 positions, a packed row has 96"),
        ({"model": "tiny"}, "a preset of this project's own model"),
    ],
)
def test_what_a_model_of_transformers_does_not_do_is_refused(
    options: TrainOptions, tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    hf_config("Gemma2", sliding_window=64, head_dim=8).save_pretrained(tmp_path / "gemma2")
    values = {"model": str(tmp_path / "gemma2"), "model_impl": "hf", "seq_len": 32} | changes
    if message is None:
        assert plan_of(options, **values).settings["model"]["model_type"] == "gemma2"
    else:
        with pytest.raises(TrainingError, match=message):
            plan_of(options, **values)


def test_a_model_of_our_own_is_not_one_of_transformers(finetuning: TrainOptions) -> None:
    with pytest.raises(TrainingError, match="a model of this project's own"):
        plan_of(finetuning, model_impl="hf")


def test_rows_longer_than_the_sequence_are_refused(finetuning: TrainOptions) -> None:
    with pytest.raises(TrainingError, match="30 rows are longer than seq_len 8"):
        plan_of(finetuning, seq_len=8)


def test_more_positions_than_the_model_has_are_refused(
    options: TrainOptions, finetuning: TrainOptions, tmp_path: Path, make_data: MakeData
) -> None:
    with pytest.raises(TrainingError, match="2,048 positions, but the model has 1,024"):
        plan_of(options, seq_len=2048)
    long = make_data(tmp_path / "long", [[[5] * 600, [6] * 600]])
    with pytest.raises(TrainingError, match=r"longest row has 1,202 positions.* has 1,024"):
        plan_of(finetuning, data=(long,))


def test_an_unknown_deepspeed_file_is_refused(options: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such DeepSpeed configuration"):
        plan_of(options, deepspeed_config=tmp_path / "zero9.json")


def test_an_out_that_holds_something_else_is_left_alone(options: TrainOptions) -> None:
    options.out.mkdir()
    (options.out / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"holds other files \(thesis\.txt"):
        plan_of(options)
    assert [path.name for path in options.out.iterdir()] == ["thesis.txt"]


def test_an_out_that_holds_another_run_is_refused_with_what_differs(options: TrainOptions) -> None:
    plan = plan_of(options)
    plan.folder.claim(plan.settings, plan.sets[0].tokenizer())
    plan_of(options)  # the same run: it may go on
    plan_of(options, log_every=1, save_every=5, threads=1)  # none of these changes the curve
    with pytest.raises(OutputError, match=r"lr: 0\.001 there, 0\.002 here"):
        plan_of(options, lr=2e-3)
    with pytest.raises(OutputError, match=r"rows_per_step: 8 there, 16 here"):
        plan_of(options, micro_batch=8, accumulation=2)
    with pytest.raises(OutputError, match="holds a run already"):
        plan_of(options, resume="never")


def test_the_same_rows_split_otherwise_are_the_same_run(options: TrainOptions) -> None:
    plan = plan_of(options)
    split = plan_of(options, micro_batch=4, accumulation=2)
    assert split.settings == plan.settings
    assert prepare(replace(options, micro_batch=4), 1, 2, hashes=False).settings == plan.settings


def test_the_first_weights_come_from_the_seed_alone(options: TrainOptions) -> None:
    from trainer.session import build_model

    torch.manual_seed(99)
    first = build_model(plan_of(options)).state_dict()
    torch.manual_seed(7)
    again = build_model(prepare(options, 1, 2, hashes=False)).state_dict()
    other = build_model(plan_of(options, seed=1)).state_dict()
    name = "model.layers.0.mlp.gate_up_proj.weight"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert first[name].dtype == torch.float32
    assert not torch.equal(first[name], other[name])


def test_a_run_on_other_ranks_keeps_its_rows_and_says_so(options: TrainOptions) -> None:
    plan = plan_of(options)
    assert plan.notes == ()
    plan.folder.claim(plan.settings, plan.sets[0].tokenizer())
    shrunk = prepare(replace(options, accumulation=4), 0, 1, hashes=False)
    assert (shrunk.shape.micro_batch, shrunk.settings) == (2, plan.settings)
    grown = prepare(options, 1, 4, hashes=False)
    assert (grown.shape.micro_batch, grown.settings) == (2, plan.settings)
    assert grown.deepspeed["train_micro_batch_size_per_gpu"] == 2
    assert grown.notes == (
        "a step of this run has 8 rows: on 4 ranks that is micro-batch 2 × accumulation 1 "
        "(asked for: 8 × 1)",
    )
    with pytest.raises(TrainingError, match="which 3 ranks cannot share evenly"):
        prepare(options, 0, 3, hashes=False)


def test_a_killed_claim_leaves_a_folder_that_the_run_can_take(options: TrainOptions) -> None:
    options.out.mkdir()
    (options.out / "run.json.123.tmp").write_text("{")
    plan = plan_of(options)
    plan.folder.claim(plan.settings, plan.sets[0].tokenizer())
    (options.out / "tokenizer.json").unlink()
    plan_of(options)


def test_pretraining_leaves_sep_untrained(options: TrainOptions) -> None:
    """No text holds one: fine-tuning of adapters must know, and train the embeddings."""
    plan = plan_of(options)
    assert plan.untrained_after == (plan.sets[0].manifest.tokenizer.special.sep,)
