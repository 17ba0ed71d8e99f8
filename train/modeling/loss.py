"""The output head and the loss: a sum over supervised tokens, never a mean.

Sums can be added over micro-batches and ranks and divided once by the number of tokens; means of
means cannot, since the tokens per micro-batch differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling.layers import Linear

#: A target without loss, as in Hugging Face's labels.
IGNORE_INDEX = -100

#: Logits are made for this many tokens at a time: on an accelerator enough for fast matrix
#: products, yet few enough that [tokens, vocab] in float32 stays a fraction of the model; on a CPU
#: so few that they stay in its caches, which makes the loss twice as fast.
CHUNK_TOKENS = {"cpu": 256}
ACCELERATOR_CHUNK_TOKENS = 2048


#: Of logits [N, V] and targets [N]: the summed loss and, if wanted, the gradient of the logits in
#: their own precision. The logits may be overwritten.
Softmax = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]


class OutputHead(Linear):
    """The projection onto the vocabulary, which also computes the loss.

    One call of the module does the whole loss, chunk by chunk: under ZeRO the weight is gathered
    once, and a head that were called once a chunk would get wrong gradients from DeepSpeed.
    """

    _softmax: Softmax

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__(inputs, outputs, std)
        self._softmax = softmax_in_place

    def compile_loss(self, backend: str) -> None:
        """Compile what is done to the logits between the matrix products.

        On an accelerator that is bound by memory: as single operations it is about ten passes over
        [chunk, vocab] in float32, compiled two or three over the logits as they are.
        """
        self._softmax = torch.compile(softmax_in_passes, backend=backend)

    def forward(self, hidden: Tensor, labels: Tensor | None = None) -> Tensor:
        """Give logits, or the summed loss.

        Args:
            hidden: [batch, tokens, hidden_size].
            labels: [batch, tokens], ``IGNORE_INDEX`` where there is no loss.

        Returns:
            Without labels the logits, [batch, tokens, vocab_size]; with labels the sum of the
            negative log-likelihoods in nats, a float32 scalar.
        """
        weight: Tensor = self.weight
        if labels is None:
            return F.linear(hidden, weight)
        if not torch.is_grad_enabled():
            # Else gradients would be made all the same: a function's own forward cannot tell.
            hidden, weight = hidden.detach(), weight.detach()
        hidden, labels = hidden.flatten(0, 1), labels.flatten()
        if hidden.device.type == "cpu" and not torch.compiler.is_compiling():
            # In fine-tuning most positions have no label. Elsewhere than on the CPU, picking the
            # others out would make the host wait for the device and give every step a new shape.
            supervised = (labels != IGNORE_INDEX).nonzero().squeeze(1)
            hidden, labels = hidden[supervised], labels[supervised]
        device = hidden.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
        loss: Tensor = _SummedNll.apply(  # type: ignore[no-untyped-call]
            hidden, weight, labels, self._softmax
        )
        return loss


def softmax_in_place(
    logits: Tensor, targets: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """See ``Softmax``; one array for logits, exponentials and gradient: memory is the cost here."""
    kept, index = _kept(targets)
    wide = logits.float()
    wide -= wide.amax(dim=1, keepdim=True)
    own = wide.gather(1, index)
    sums = wide.exp_().sum(dim=1, keepdim=True)
    loss = ((sums.log() - own) * kept).sum()
    if not with_gradient:
        return loss, None
    return loss, wide.mul_(kept / sums).scatter_add_(1, index, -kept).to(logits.dtype)


def softmax_in_passes(
    logits: Tensor, targets: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """See ``Softmax``; without a scatter, so that a compiler can fuse each pass over the logits."""
    kept, index = _kept(targets)
    wide = logits.float()
    shifted = wide - wide.amax(dim=1, keepdim=True)
    exponentials = shifted.exp()
    sums = exponentials.sum(dim=1, keepdim=True)
    loss = ((sums.log() - shifted.gather(1, index)) * kept).sum()
    if not with_gradient:
        return loss, None
    columns = torch.arange(logits.shape[1], device=logits.device)
    gradient = (exponentials / sums - (columns == index).float()) * kept
    return loss, gradient.to(logits.dtype)


def _kept(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 where there is loss, and legal indices everywhere, both [N, 1]."""
    kept = (targets != IGNORE_INDEX).float().unsqueeze(1)
    return kept, targets.clamp(min=0).unsqueeze(1)


class _SummedNll(torch.autograd.Function):
    """Sum of −log p(target), with the gradients made on the way.

    The gradient of a cross entropy is known once the logits are (softmax − one-hot), so each chunk
    is finished, gradient and all, before the next: no logits are kept and none computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softmax: Softmax
    ) -> Tensor:
        """hidden [N, D], weight [V, D], targets [N] → float32 scalar."""
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        # Chunks are added up in float32, whatever the weight's precision.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if want_weight else None
        size = CHUNK_TOKENS.get(hidden.device.type, ACCELERATOR_CHUNK_TOKENS)
        for start in range(0, hidden.shape[0], size):
            part = slice(start, start + size)
            chunk = hidden[part]
            loss, grad = softmax(chunk @ weight.T, targets[part], want_hidden or want_weight)
            total += loss
            if grad is None:
                continue
            if grad_hidden is not None:
                grad_hidden[part] = grad @ weight
            if grad_weight is not None:
                grad_weight += grad.T @ chunk
        ctx.has = (want_hidden, want_weight)
        kept_grads = [grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype)]
        ctx.save_for_backward(*kept_grads)
        return total

    @staticmethod
    def backward(
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Scale the gradients that ``forward`` made."""
        (scale,) = grad_outputs
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * scale,
            None if grad_weight is None else grad_weight * scale,
            None,
            None,
        )
