"""Top-k and the repetition penalty; transformers is the oracle for the latter."""

from __future__ import annotations

import torch
from transformers import RepetitionPenaltyLogitsProcessor

from inference.choosing import Repetition, Sampling, choose


def test_top_k_leaves_the_likeliest_only() -> None:
    logits = torch.tensor([1.0, 3.0, 0.0, 2.0])
    drawn = torch.linspace(0, 1, 40_001)[:-1]
    rows = logits.expand(len(drawn), 4)
    chosen = choose(rows, drawn, Sampling(temperature=1.0, top_k=2))
    expected = logits.softmax(0) * torch.tensor([0, 1, 0, 1])
    shares = chosen.bincount(minlength=4) / len(drawn)
    torch.testing.assert_close(shares, expected / expected.sum(), atol=1e-3, rtol=0)
    # top-p counts within what top-k left: 0.73 of it is the likeliest alone.
    both = choose(rows, drawn, Sampling(temperature=1.0, top_p=0.7, top_k=2))
    assert both.unique().tolist() == [1]
    assert choose(rows, drawn, Sampling(temperature=1.0, top_k=9)).unique().tolist() == [0, 1, 2, 3]


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    prompts, logits = [[1, 4, 4], [2, 0, 3]], torch.randn(2, 8)
    ours = Repetition(prompts, 8, 1.3, torch.device("cpu"))
    theirs = RepetitionPenaltyLogitsProcessor(1.3)
    torch.testing.assert_close(ours.apply(logits), theirs(torch.tensor(prompts), logits))
    ours.add(torch.tensor([6, 7]))
    longer = torch.tensor([[*prompts[0], 6], [*prompts[1], 7]])
    torch.testing.assert_close(ours.apply(logits), theirs(longer, logits))
    ours.keep(torch.tensor([1]))
    torch.testing.assert_close(ours.apply(logits[1:]), theirs(longer[1:], logits[1:]))
