"""One optimizer step: forward, backward, the guard's judgement, the update.

The host waits for the accelerator once, where DeepSpeed waits for it anyway: when the gradient's
norm is known. Whatever the host wants to know of the step travels together there, in one small
all-reduce, and all ranks judge the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.distributed import World
from trainer.feed import StepData
from trainer.guard import Guard, Reason, stand_before


@dataclass(frozen=True)
class Outcome:
    """What came of a step, the same on all ranks.

    Attributes:
        loss: nats per supervised token, before the update.
        grad_norm: 2-norm before clipping, or None if DeepSpeed was told not to compute it.
        skipped: why weights and optimizer were left as they were, or None.
        stop: whether any rank was asked to stop.
        waited: seconds that a rank has waited for data, on average.
    """

    loss: float
    grad_norm: float | None
    skipped: Reason | None
    stop: bool
    waited: float


class OptimizerStep:
    """Does optimizer steps on DeepSpeed's engine.

    Args:
        engine: DeepSpeed's.
        world: the ranks.
        guard: judges each step.
        own_clip: largest norm if the gradient is clipped here (see ``engine.clips_itself``), 0
            for no limit; None if DeepSpeed does it.
    """

    def __init__(self, engine: Any, world: World, guard: Guard, own_clip: float | None) -> None:
        self._engine = engine
        self._world = world
        self._guard = guard
        self._own_clip = own_clip
        self._own_norm: Tensor | None = None
        self._outcome: Outcome | None = None
        self._facts: tuple[Tensor, int, Callable[[], bool], float] | None = None
        # ZeRO 3 may keep a second optimizer for what is not offloaded.
        second = getattr(engine.optimizer, "backup_optimizer", None)
        first = engine.basic_optimizer
        stand_before([first] if second is None else [first, second], self._refuses)

    def run(
        self, data: StepData, lr: float, *, asked: Callable[[], bool], waited: float
    ) -> Outcome:
        """Do one step; all ranks call this.

        Args:
            data: of the step; ``supervised`` is above 0.
            lr: learning rate of this update.
            asked: tells whether this rank was asked to stop.
            waited: seconds that this rank has waited for the data.
        """
        engine = self._engine
        nll_sum = torch.zeros((), dtype=torch.float64, device=self._world.device)
        for batch in data.batches:
            nll = engine(**batch)
            # DeepSpeed averages over the ranks: times world. So each token of the whole step
            # weighs 1 / supervised, in whatever micro-batch and on whatever rank it stands.
            engine.backward(nll * (self._world.size / data.supervised), scale_wrt_gas=False)
            nll_sum += nll.detach()
            if batch is not data.batches[-1]:
                engine.step()  # counts the micro-batch; updates nothing yet
        for group in engine.optimizer.param_groups:
            group["lr"] = lr
        self._facts = (nll_sum, data.supervised, asked, waited)
        self._outcome = None
        if self._own_clip is not None:
            limit = self._own_clip if self._own_clip > 0 else float("inf")
            self._own_norm = nn.utils.clip_grad_norm_(engine.module.parameters(), limit)
        engine.step()
        # DeepSpeed itself drops a gradient that is no number: then no optimizer has asked.
        outcome: Outcome = self._outcome or self._settle(dropped=True)
        self._facts = None
        return outcome

    def _refuses(self) -> bool:
        """Tell an optimizer whether to leave everything as it is."""
        if self._facts is None:
            return False  # a call from outside of a step
        if self._outcome is None:
            self._outcome = self._settle(dropped=False)
        return self._outcome.skipped is not None

    def _settle(self, *, dropped: bool) -> Outcome:
        """Learn what all ranks know of the step, and judge it."""
        assert self._facts is not None
        nll_sum, supervised, asked, waited = self._facts
        norm = self._own_norm if self._own_clip is not None else self._deepspeed_norm()
        if norm is None and dropped:
            norm = float("inf")
        device = self._world.device
        own = torch.as_tensor(0.0 if norm is None else norm, dtype=torch.float64, device=device)
        if not self._world.is_main:
            # Every rank has the norm: that of rank 0 counts, unless one's own is no number.
            own = torch.where(own.isfinite(), torch.zeros_like(own), own)
        host = torch.tensor([float(asked()), waited], dtype=torch.float64).to(device)
        told = torch.cat([nll_sum[None], own.reshape(1), host])
        if self._world.size > 1:
            dist.all_reduce(told)
        nll_total, total_norm, stop, wait = told.tolist()
        loss, known = nll_total / supervised, None if norm is None else total_norm
        return Outcome(
            loss, known, self._guard.judge(loss, known), stop > 0, wait / self._world.size
        )

    def _deepspeed_norm(self) -> Tensor | float | None:
        norm: Tensor | float | None = self._engine.optimizer._global_grad_norm
        return norm
