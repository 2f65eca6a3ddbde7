"""Claims: what they select."""

from __future__ import annotations

from harness import claims
from harness.spec.base import Scalar


def test_each_kind_says_what_is_compared() -> None:
    left, right, at = {"a": 1}, {"a": 2}, {"b": 3}
    for function, kind in ((claims.better, "better"), (claims.no_worse, "no_worse"), (claims.same, "same")):
        claim = function("words", left, right, at=at)
        assert (claim.kind, claim.sentence, claim.left, claim.right, claim.at) == (kind, "words", left, right, at)


def test_selections_join_a_side_with_where_it_holds() -> None:
    claim = claims.better("words", {"a": 1}, claims.best(a=2, c="x"), at={"b": 3})
    assert claims.selections(claim) == [{"a": 1, "b": 3}, {"a": 2, "b": 3, "c": "x"}]
    assert claims.selections(claims.inner_maximum("words", axis="a", at={"b": 3})) == [{"b": 3}]


def test_an_axis_that_is_not_named_is_free_and_none_is_a_value() -> None:
    cells: list[dict[str, Scalar]] = [{"a": 1, "b": 1}, {"a": 1, "b": None}, {"a": 2, "b": 1}]
    assert list(filter(claims.selector({"a": 1}), cells)) == cells[:2]
    assert list(filter(claims.selector({"b": None}), cells)) == [cells[1]]
    assert list(filter(claims.selector({}), cells)) == cells
    assert not list(filter(claims.selector({"c": None}), cells))
