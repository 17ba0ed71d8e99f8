"""What runs on CUDA is traced whole, with torch's own ``varlen_attn``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling import layout
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM

MakeConfig = Callable[..., ModelConfig]


class _TracedError(Exception):
    """The graph is there; it is not run."""


@pytest.mark.parametrize("key_value_heads", [2, 4])
def test_a_layer_with_flash_attention_is_one_graph(
    make_config: MakeConfig, key_value_heads: int
) -> None:
    """The tracer meets the real call with its real arguments; no graph breaks, nothing warns."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        raise _TracedError

    config = make_config(num_attention_heads=4, num_key_value_heads=key_value_heads)
    layer = LlamaForCausalLM(config).model.layers[0]
    angles = (torch.ones(1, 32, 1, config.head_dim // 2),) * 2
    where = layout.Varlen(torch.tensor([0, 20, 32, 32], dtype=torch.int32), 32)
    torch.compiler.reset()
    traced = torch.compile(layer.forward, backend=backend, fullgraph=True)
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="_TracedError"):
        traced(torch.randn(1, 32, config.hidden_size), angles, where, None)
    assert sum("_varlen_attn" in target for target in seen) == 1
