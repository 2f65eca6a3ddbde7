"""Operators are counted as torch dispatches them; views are not."""

from __future__ import annotations

import torch

from harness.core.runtime.operators import Operators


def test_operators_are_counted_and_views_are_not() -> None:
    x = torch.ones(4, 6, requires_grad=True)
    with Operators() as found:
        y = x.t().view(2, 3, 4)[:, 0].unsqueeze(0)  # views
        assert found.total == 0
        z = (y * 2).sum()
        assert found.names == {"aten::mul": 1, "aten::sum": 1}
    assert found.total == 2
    with Operators() as back:
        z.backward()
    assert back.names["aten::mul"] == 1, "those of the backward pass too"


def test_in_place_operators_count_and_contexts_lie_within_each_other() -> None:
    x, weight, bias = torch.zeros(3), torch.ones(2, 3), torch.ones(2)
    with Operators() as outer:
        x.add_(1)
        with Operators() as inner:
            torch.nn.functional.linear(x[None], weight, bias)
        x.fill_(0)
    assert inner.names == {"aten::addmm": 1}
    assert outer.names == {"aten::add_": 1, "aten::addmm": 1, "aten::fill_": 1}
