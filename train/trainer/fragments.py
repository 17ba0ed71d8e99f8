"""What this rank updates of which parameter, whatever DeepSpeed has put around the optimizer.

Every wrapper (none at stage 0, one for bf16 at stage 1, others at stages 1–2 and at stage 3) keeps
fp32 weights in tensors that hold pieces of flattened parameters. A ``Partition`` is such a tensor,
with the optimizer's state of the same shape; a ``Piece`` says what stands where in it. The names
are those of the module's parameters, and places count from a parameter's own first element, so
that nothing of the ranks, the stage or the order of the parameters is left in them.

Frozen parameters have no piece: they are not the optimizer's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vnprep.errors import TrainingError

#: What torch.compile puts before the names of the parameters of a module that it wraps.
_COMPILED = "_orig_mod."


@dataclass(frozen=True)
class Piece:
    """A run of one parameter's elements.

    Attributes:
        name: the parameter's, in the module.
        shape: the whole parameter's.
        start: the first element, in the flattened parameter.
        numel: elements.
        offset: where the first one stands in the partition.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    numel: int
    offset: int


@contextlib.contextmanager
def _in_memory(*, changes: bool) -> Iterator[None]:
    """Nothing to bring in or out; see ``Partition.held``."""
    del changes
    yield


@dataclass(frozen=True, eq=False)
class Partition:
    """A tensor of fp32 weights that this rank updates.

    Attributes:
        tensor: the weights; also the key of the optimizer's state.
        optimizer: the one below DeepSpeed's wrapper, which updates it.
        group: the optimizer's settings for it.
        pieces: what it holds.
        copies: (rank, ranks) if every rank holds the same, so that each need save but a share.
        held: context in which weights and state are in memory (offloaded to NVMe, they are not);
            ``changes`` tells whether they must be written back.
    """

    tensor: Tensor
    optimizer: Any
    group: dict[str, Any]
    pieces: tuple[Piece, ...]
    copies: tuple[int, int] = (0, 1)
    held: Callable[..., contextlib.AbstractContextManager[None]] = _in_memory

    @property
    def state(self) -> dict[str, Any]:
        """The optimizer's state, by kind; empty before the first step."""
        found: dict[str, Any] = self.optimizer.state.get(self.tensor, {})
        return found

    @property
    def own_pieces(self) -> tuple[Piece, ...]:
        """What this rank saves: all pieces, or its share of them where the ranks hold copies."""
        rank, ranks = self.copies
        shares = []
        for piece in self.pieces:
            first, last = piece.numel * rank // ranks, piece.numel * (rank + 1) // ranks
            if last > first:
                start, offset = piece.start + first, piece.offset + first
                shares.append(Piece(piece.name, piece.shape, start, last - first, offset))
        return tuple(shares)

    def start_optimizer(self) -> None:
        """Let the optimizer make its state, as it does at its first step; no weight changes.

        Its own code does it, so the state is of the kind, precision and place that it wants. All
        values are then to be filled in.
        """
        before, groups = self.tensor.grad, self.optimizer.param_groups
        self.tensor.grad = torch.zeros_like(self.tensor)
        self.optimizer.param_groups = [{**self.group, "params": [self.tensor], "lr": 0.0}]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
            self.tensor.grad = before


def partitions(engine: Any) -> list[Partition]:
    """Return what this rank updates, in the same order at every call.

    Raises:
        TrainingError: DeepSpeed keeps the weights in a way that is not known here.
    """
    wrapper = engine.optimizer
    if hasattr(wrapper, "fp32_partitioned_groups_flat"):
        return _stage_3(wrapper, _names(engine.module))
    if hasattr(wrapper, "single_partition_of_fp32_groups"):
        return _flat_groups(
            wrapper,
            _names(engine.module),
            wrapper.single_partition_of_fp32_groups,
            zip(wrapper.round_robin_bit16_groups, wrapper.round_robin_bit16_offsets, strict=True),
        )
    if hasattr(wrapper, "fp32_groups_flat_partition"):
        groups = wrapper.bf16_groups
        places = zip(groups, map(_offsets, groups), strict=True)
        return _flat_groups(
            wrapper, _names(engine.module), wrapper.fp32_groups_flat_partition, places
        )
    copies = (engine.global_rank, engine.world_size)
    names = _names(engine.module)
    if hasattr(wrapper, "fp32_groups") and hasattr(wrapper, "unscale_and_clip_grads"):
        pairs = zip(wrapper.fp16_groups, wrapper.fp32_groups, strict=True)
        masters = [(lp, hp) for low, high in pairs for lp, hp in zip(low, high, strict=True)]
        return _whole(wrapper.optimizer, masters, names, copies)
    if isinstance(wrapper, torch.optim.Optimizer):
        trained = [(p, p) for group in wrapper.param_groups for p in group["params"]]
        return _whole(wrapper, trained, names, copies)
    raise TrainingError(
        f"DeepSpeed's {type(wrapper).__name__} keeps the weights in a way that cannot be saved",
        remedy="take one of ds_configs/",
    )


def before_loading(engine: Any) -> None:
    """Put whole weights away, so that none of them outlives what is loaded into its parts."""
    if hasattr(engine.optimizer, "fp32_partitioned_groups_flat"):
        engine.optimizer.checkpoint_event_prologue()


def refresh_weights(engine: Any) -> None:
    """Bring the fp32 weights that were loaded into the module; all ranks call this."""
    wrapper = engine.optimizer
    if hasattr(wrapper, "fp32_partitioned_groups_flat"):
        wrapper.checkpoint_event_epilogue()  # each partition was brought in while it was held
    elif hasattr(wrapper, "update_lp_params"):
        wrapper.update_lp_params()
    elif hasattr(wrapper, "fp32_groups"):
        for low, high in zip(wrapper.fp16_groups, wrapper.fp32_groups, strict=True):
            for parameter, master in zip(low, high, strict=True):
                parameter.data.copy_(master.data)


def _names(module: nn.Module) -> dict[int, str]:
    """Return the names of the parameters by identity; a tied one has its first name."""
    return {id(p): name.replace(_COMPILED, "") for name, p in module.named_parameters()}


def _offsets(parameters: Iterable[Tensor]) -> list[int]:
    """Return where each parameter begins if they are laid one after another."""
    offsets, end = [], 0
    for parameter in parameters:
        offsets.append(end)
        end += parameter.numel()
    return offsets


def _whole(
    optimizer: torch.optim.Optimizer,
    masters: list[tuple[Tensor, Tensor]],
    names: dict[int, str],
    copies: tuple[int, int],
) -> list[Partition]:
    """Stage 0: every rank holds every parameter whole."""
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return [
        Partition(
            master,
            optimizer,
            group_of[id(master)],
            (Piece(names[id(parameter)], tuple(master.shape), 0, master.numel(), 0),),
            copies,
        )
        for parameter, master in masters
    ]


def _flat_groups(
    wrapper: Any, names: dict[int, str], flat: list[Tensor], places: Iterable[tuple[Any, Any]]
) -> list[Partition]:
    """Stages 1 and 2: a group of parameters laid end to end and cut evenly among the ranks."""
    found = []
    for index, (tensor, (parameters, offsets)) in enumerate(zip(flat, places, strict=True)):
        rank = torch.distributed.get_rank(wrapper.real_dp_process_group[index])
        begin = rank * tensor.numel()
        end = begin + tensor.numel()
        pieces = []
        for parameter, offset in zip(parameters, offsets, strict=True):
            first, last = max(offset, begin), min(offset + parameter.numel(), end)
            if last > first:
                shape, name = tuple(parameter.shape), names[id(parameter)]
                pieces.append(Piece(name, shape, first - offset, last - first, first - begin))
        group = wrapper.optimizer.param_groups[index]
        found.append(Partition(tensor, wrapper.optimizer, group, tuple(pieces)))
    return found


def _stage_3(wrapper: Any, names: dict[int, str]) -> list[Partition]:
    """Stage 3: each parameter cut evenly among the ranks, the cuts laid end to end."""
    found = []
    for index, tensor in enumerate(wrapper.fp32_partitioned_groups_flat):
        pieces, offset = [], 0
        for parameter in wrapper.fp16_groups[index]:
            numel = parameter.partition_numel()
            start = wrapper._get_param_partition_rank(parameter) * numel
            real = min(numel, parameter.ds_numel - start)  # the last cut is padded
            if real > 0:
                shape, name = tuple(parameter.ds_shape), names[id(parameter)]
                pieces.append(Piece(name, shape, start, real, offset))
            offset += numel
        optimizer = wrapper.optimizer
        if wrapper.offload_optimizer and wrapper.subgroup_to_device[index] != "cpu":
            optimizer = wrapper.backup_optimizer  # a part of the state stays on the accelerator
        group = optimizer.param_groups[wrapper.sub_group_to_group_id[index]]
        held = _holder(wrapper, index)
        found.append(Partition(tensor, optimizer, group, tuple(pieces), held=held))
    return found


def _holder(wrapper: Any, index: int) -> Callable[..., contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def held(*, changes: bool) -> Iterator[None]:
        swapped = wrapper._swappable_optimizer_subgroup(index)
        if swapped:
            wrapper._optimizer_states_and_gradient_swap_in(index)
        yield
        if changes:
            wrapper._reassign_or_swap_out_partitioned_parameters(index)
        if swapped and changes:
            wrapper._optimizer_states_and_gradient_swap_out(index)
        elif swapped:
            wrapper._release_swap_buffers(index)

    return held
