"""The trees of a model as lists of numbers, and the checks that such lists must pass before a row walks through them."""

import sys
from typing import Any, NoReturn

import numpy as np

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.models.members import Trees
from quantbot_pipeline.models.numbers import Ints

MAX_NODES = 100_000  # a model has 40 trees of 13
MAX_DEPTH = 64
TREE = ("feature", "threshold", "left", "right", "missing_left", "value")


def refuse(why: str) -> NoReturn:
    """Raise InputError: a document is refused, and why."""
    raise InputError(
        f"a model document is refused: {why}; make the month's models again with `quantbot backtest model`"
    )


def tree_of(value: Any, where: str, keys: set[str]) -> None:
    """Refuse what is no object with exactly these keys."""
    if not isinstance(value, dict):
        refuse(f"{where} is no object")
    if wrong := sorted(keys ^ value.keys()):
        refuse(f"{where} {'lacks' if wrong[0] in keys else 'has an unknown key'} {wrong[0][:40]!r}")


def trees_to(trees: Trees) -> dict[str, Any]:
    """Return trees as a JSON value: a list of trees, each of lists of its nodes."""
    spans = zip(trees.starts[:-1], trees.starts[1:], strict=True)
    return {
        "baseline": trees.baseline,
        "trees": [{name: getattr(trees, name)[first:last].tolist() for name in TREE} for first, last in spans],
    }


def trees_from(value: Any, features: int) -> Trees:
    """Return the trees of a JSON value. Raises InputError for a child that is out of range, before its parent, or of two parents."""
    tree_of(value, "boosting", {"baseline", "trees"})
    listed = value["trees"]
    if not isinstance(listed, list) or not listed:
        refuse("boosting.trees is no list of trees")
    for number, tree in enumerate(listed):
        tree_of(tree, f"tree {number}", set(TREE))
        _require_lengths(tree, number)
    sizes = [len(tree["feature"]) for tree in listed]
    if sum(sizes) > MAX_NODES:
        refuse(f"its trees have {sum(sizes):,} nodes, more than {MAX_NODES:,}")
    arrays = {name: [_array(tree[name], name, number) for number, tree in enumerate(listed)] for name in TREE}
    for number in range(len(listed)):
        feature, left, right = (arrays[name][number] for name in ("feature", "left", "right"))
        _require_tree(number, feature, left, right, features)
    joined = {name: np.concatenate(parts) for name, parts in arrays.items()}
    (baseline,) = _array([value["baseline"]], "value", -1)
    return Trees(baseline=float(baseline), starts=np.cumsum([0, *sizes]), **joined)


def _require_lengths(tree: dict[str, Any], number: int) -> None:
    lengths = {len(tree[name]) if isinstance(tree[name], list) else -1 for name in TREE}
    if len(lengths) > 1 or lengths <= {-1, 0}:
        refuse(f"tree {number} has lists of different lengths, or none")


def _array(values: list[Any], name: str, number: int) -> Any:
    where = f"tree {number}: {name}" if number >= 0 else "boosting.baseline"
    if name == "missing_left":
        if not all(isinstance(v, bool) for v in values):
            refuse(f"{where} is neither true nor false")
        return np.array(values, bool)
    whole = name in ("feature", "left", "right")
    if any(
        isinstance(v, bool) or not isinstance(v, int if whole else (int, float)) or abs(v) > sys.float_info.max
        for v in values
    ):
        refuse(f"{where} holds something that is no {'whole ' if whole else 'finite '}number")
    if whole and any(not -1 <= v < MAX_NODES for v in values):
        refuse(f"{where} is out of range")
    try:
        found = np.array(values, np.int64 if whole else np.float64)
    except OverflowError:
        refuse(f"{where} is out of range")
    if not whole and not np.isfinite(found).all():
        refuse(f"{where} is not finite")
    return found


def _require_tree(number: int, feature: Ints, left: Ints, right: Ints, features: int) -> None:
    """Refuse what is no tree: a node has no child or two, which lie behind it, and every node but the first has one parent."""
    nodes, own = len(feature), np.arange(len(feature))
    if ((feature < 0) | (feature >= features)).any():
        refuse(f"tree {number}: feature is out of range")
    if ((left < 0) != (right < 0)).any():
        refuse(f"tree {number}: a node has one child")
    inner = left >= 0
    children = np.concatenate([left[inner], right[inner]])
    if (children >= nodes).any():
        refuse(f"tree {number}: a child is out of range")
    if (children <= np.concatenate([own[inner], own[inner]])).any():
        refuse(f"tree {number}: a child lies before its parent")
    if len(children) != nodes - 1 or len(np.unique(children)) != nodes - 1:
        refuse(f"tree {number}: a node has not one parent")
    depth = np.zeros(nodes, np.int64)
    for node in own[inner]:
        depth[[left[node], right[node]]] = depth[node] + 1
    if depth.max() > MAX_DEPTH:
        refuse(f"tree {number} is deeper than {MAX_DEPTH}")
