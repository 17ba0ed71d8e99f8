"""Ranks that do not come."""

from __future__ import annotations

import socket
from datetime import timedelta

import pytest

from trainer import distributed
from vnprep.errors import TrainingError


def test_ranks_that_do_not_come_are_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in group.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=1))
    with pytest.raises(TrainingError, match=r"not all of the 2 ranks came within 1 s"):
        distributed.join()


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("[/pair.cc:534] Connection closed by peer [127.0.0.1]:3251", True),
        ("[/pair.cc:534] Connection reset by peer", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("mat1 and mat2 shapes cannot be multiplied (4x5 and 6x7)", False),
    ],
)
def test_what_means_that_a_rank_is_lost(text: str, lost: bool) -> None:
    assert distributed.lost_rank(RuntimeError(text)) is lost
