"""What of DeepSpeed's configuration the trainer must know."""

from __future__ import annotations

from trainer import engine


def test_only_fp32_without_zero_is_clipped_by_the_loop() -> None:
    assert engine.clips_itself({"zero_optimization": {"stage": 0}})
    assert engine.clips_itself({})
    assert not engine.clips_itself({"zero_optimization": {"stage": 1}})
    assert not engine.clips_itself({"bf16": {"enabled": True}})
