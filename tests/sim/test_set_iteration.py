"""No code of the product goes through a set in its own order: that order differs from one process to the next.

What can be seen in the source counts as a set: names and attributes that are annotated or assigned as one anywhere in
their module, calls that give one, and both results of `asyncio.wait`. `sorted` makes an order; so do `min`, `max`,
`sum`, `any`, `all` and `len` need none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "warp"
SET_MAKERS = {"set", "frozenset", "all_tasks", "WeakSet"}
SET_METHODS = {"union", "intersection", "difference", "symmetric_difference"}
ORDER_TAKERS = {
    "list",
    "tuple",
    "iter",
    "enumerate",
    "zip",
    "map",
    "filter",
    "dict",
    "fromkeys",
    "join",
    "extend",
}
ORDER_FREE = {"min", "max", "sum", "any", "all", "len", "sorted", "set", "frozenset"}


def name_of(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.arg(arg=name):
            return name
    return None


def called(node: ast.AST) -> str | None:
    return name_of(node.func) if isinstance(node, ast.Call) else None


def is_set_annotation(node: ast.AST | None) -> bool:
    match node:
        case ast.Subscript(value=value):
            return is_set_annotation(value)
        case ast.BinOp(left=left, right=right):
            return is_set_annotation(left) or is_set_annotation(right)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in {"set", "frozenset", "AbstractSet", "MutableSet"}
    return False


class SetIterations:
    """Finds the places in one module."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._sets = set(self._set_names())

    def lines(self) -> list[int]:
        return sorted({node.lineno for node in self._iterated() if self._is_set(node)})

    def _set_names(self) -> Iterator[str]:
        for node in ast.walk(self._tree):
            match node:
                case ast.AnnAssign(target=target, annotation=annotation) if is_set_annotation(annotation):
                    yield name_of(target) or ""
                case ast.arg(annotation=annotation) if is_set_annotation(annotation):
                    yield node.arg
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Await(value=value)):
                    if called(value) == "wait":
                        yield from (name_of(name) or "" for name in names)
                case ast.Assign(targets=targets, value=ast.Set() | ast.SetComp()):
                    yield from (name_of(target) or "" for target in targets)
                case ast.Assign(targets=targets, value=ast.Call()) if called(node.value) in SET_MAKERS:
                    yield from (name_of(target) or "" for target in targets)

    def _is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=ast.Attribute(value=value)) if called(node) in SET_METHODS | {"copy"}:
                return self._is_set(value)
            case ast.Call():
                return called(node) in SET_MAKERS
            case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
                return self._is_set(left) or self._is_set(right)
        return name_of(node) in self._sets

    def _iterated(self) -> Iterator[ast.expr]:
        order_free = {
            comprehension
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Call) and called(node) in ORDER_FREE
            for comprehension in node.args
            if isinstance(comprehension, ast.GeneratorExp)
        }
        for node in ast.walk(self._tree):
            match node:
                case ast.For(iter=iterated) | ast.AsyncFor(iter=iterated) | ast.YieldFrom(value=iterated):
                    yield iterated
                case ast.ListComp() | ast.DictComp():
                    yield from (generator.iter for generator in node.generators)
                case ast.GeneratorExp() if node not in order_free:
                    yield from (generator.iter for generator in node.generators)
                case ast.Call() if called(node) in ORDER_TAKERS:
                    yield from node.args
                case ast.Call(func=ast.Attribute(value=value, attr="pop"), args=[]):
                    yield value
                case ast.Starred(value=value):
                    yield value


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_set_is_gone_through_in_its_own_order(path: Path) -> None:
    assert SetIterations(ast.parse(path.read_text())).lines() == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("tasks: set[Task] = f()\nfor task in tasks:\n    task.cancel()", [2]),
        ("class C:\n def f(self):\n  self._all = set()\n  return [x for x in self._all]", [4]),
        ("async def f():\n done, late = await asyncio.wait(tasks)\n for task in late:\n  pass", [3]),
        ("for task in asyncio.all_tasks():\n    pass", [1]),
        ("names = {'a', 'b'}\nlist(names - {'a'})", [2]),
        ("def f(names: frozenset[str]):\n    return ','.join(names)", [2]),
        ("names = {1, 2}\nprint(*names)", [2]),
        ("names = set()\nnames.pop()", [2]),
        ("names = {'a', 'b'}\nfor name in sorted(names):\n    print(name)", []),
        ("names = {'a', 'b'}\nany(name for name in names)\nfrozenset(names)", []),
        ("names = {'a': 1}\nfor name in names:\n    pass\nnames.pop('a')", []),
    ],
)
def test_the_scan_finds_what_it_is_for(source: str, lines: list[int]) -> None:
    assert SetIterations(ast.parse(source)).lines() == lines
