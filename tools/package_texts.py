"""Follow a text of the package back to where it is written, without running anything.

An expression is followed through what it may be at run time: the sides of a conditional, the names it was assigned to, the
parameters of a function to what its callers give, a call to what the function returns, a lookup in a table to all that the table
holds, a field of a value to what it was made with, ``str(error)`` to what the room raises. Where it may be several texts, all are
found; where it cannot be told, as of a number or of what another library says, there is a place (``PLACE``) in the text.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = ["PLACE", "Module", "Package", "Scope"]

PLACE = "\0"
"""Stands in a text for what the code fills in; no message has this character of itself."""

LONGEST_WAY = 4
MOST_HOPS = 2
"""From a parameter in a place of a text to that of the caller, to that of its caller."""

OWN_LETTERS = 5
"""A text with fewer letters outside of its places is found with what may fill them instead: ``f"{keyword}: {why}"``."""

Step: TypeAlias = int | Literal["each"]
"""From a value to one that it holds: the element of a tuple, or any of a container."""

Way: TypeAlias = tuple[Step, ...]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

_SAME = {"strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "lower", "capitalize"}
"""Methods of a text after which it is, for our purpose, the same text."""
_SLOT = re.compile(r"\{[^{}]*\}")
_SAME_ITEMS = {"list", "tuple", "set", "sorted", "reversed", "iter", "frozenset"}


@dataclass(eq=False)
class Module:
    """A module: what it defines and what it imports, by name. ``functions`` holds methods and inner functions too."""

    path: Path
    name: str
    room: str
    tree: ast.Module
    functions: dict[str, list[tuple[Function, Scope]]] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[str, list[Value]]:
        """What its names outside of functions were assigned to."""
        return _assigned(self.tree.body)


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: in a module, and within functions, the innermost first.

    ``inside`` says that it fills a place of a longer text: then it is mostly the name of something, and is followed less far.
    """

    module: Module
    functions: tuple[Function, ...] = ()
    inside: int = 0


@dataclass(frozen=True)
class Value:
    """An expression, and the way from it to the value that is meant."""

    expression: ast.expr
    path: Way = ()


class Package:
    """All modules below a folder."""

    def __init__(self, root: Path) -> None:
        self._modules = {}
        self._calls: dict[str, list[tuple[ast.Call, Scope]]] = {}
        self._raised: dict[str, list[tuple[ast.expr, Scope]]] = {}
        self._fields: dict[str, list[tuple[Module, str, int, str]]] = {}
        self._set: dict[tuple[Module, str], list[tuple[ast.expr, Scope]]] = {}
        self._assigned: dict[Function, dict[str, list[Value]]] = {}
        self._known: dict[tuple[int, Way, int], set[str]] = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join((root.name, *parts)).removesuffix(".__init__")
            module = Module(path, name, parts[0], ast.parse(path.read_text("utf-8")))
            self._modules[name] = module
            self._index(module.tree, Scope(module))

    def calls(self) -> Iterator[tuple[ast.Call, Scope]]:
        """Every call in the package."""
        for found in list(self._calls.values()):
            yield from found

    def texts(self, expression: ast.expr, scope: Scope) -> set[str]:
        """The texts that an expression may come to, and those that may fill the places of these."""
        return {text for text in self._of(expression, scope, ()) if any(c.isalpha() for c in text)}

    def _index(self, node: ast.AST, scope: Scope) -> None:
        module = scope.module
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                module.functions.setdefault(child.name, []).append((child, scope))
                inner = Scope(module, (child, *scope.functions))
            elif isinstance(child, ast.ClassDef):
                module.classes[child.name] = child
                fields = [s for s in child.body if isinstance(s, ast.AnnAssign)]
                for i, one in enumerate(fields):
                    self._fields.setdefault(_name(one.target), []).append(
                        (module, child.name, i, _name(one.annotation))
                    )
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    module.imports[alias.asname or alias.name] = (child.module, alias.name)
            elif isinstance(child, ast.Call):
                self._calls.setdefault(_name(child.func), []).append((child, scope))
            elif isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
                if _name(child.exc.func) in ("ValueError", "TypeError", "KeyError", "RuntimeError") and child.exc.args:
                    self._raised.setdefault(module.room, []).append((child.exc.args[0], scope))
            elif isinstance(child, ast.Assign):
                for target in child.targets:
                    if isinstance(target, ast.Attribute):
                        self._set.setdefault((module, target.attr), []).append((child.value, scope))
            self._index(child, inner)

    def _of(self, node: ast.expr, scope: Scope, path: Way) -> set[str]:
        """Of an expression that is being looked into already, what was found so far: an expression may lead back to itself."""
        key = (id(node), path, scope.inside)
        if key not in self._known:
            self._known[key] = set()
            if len(path) <= LONGEST_WAY:
                self._known[key] = set(self._found(node, scope, path))
        return self._known[key]

    def _found(self, node: ast.expr, scope: Scope, path: Way) -> Iterator[str]:
        match node:
            case ast.Constant(value=str(text)) if not path:
                yield text
            case ast.JoinedStr() if not path:
                yield from self._of_f_string(node, scope)
            case ast.BinOp(op=ast.Add()) if not path:
                yield from self._joined([node.left, node.right], scope)
            case ast.BinOp(op=ast.Mult(), left=ast.Constant(value=str(text))) if not path:
                yield from ("", text)
            case ast.BinOp(op=ast.Add() | ast.BitOr()):
                yield from self._all((node.left, node.right), scope, path)
            case ast.IfExp():
                yield from self._all((node.body, node.orelse), scope, path)
            case ast.BoolOp():
                yield from self._all(node.values, scope, path)
            case ast.NamedExpr():
                yield from self._of(node.value, scope, path)
            case ast.Tuple() | ast.List() | ast.Set() if path:
                yield from self._of_items(node.elts, scope, path)
            case ast.Dict() if path and path[0] == "each":
                yield from self._all(node.values, scope, path[1:])
            case ast.GeneratorExp() | ast.ListComp() | ast.SetComp() if path:
                yield from self._of(node.elt, scope, path[1:])
            case ast.DictComp() if path:
                yield from self._of(node.value, scope, path[1:])
            case ast.Subscript():
                yield from self._of_subscript(node, scope, path)
            case ast.Name():
                yield from self._of_name(node.id, scope, path)
            case ast.Attribute() if not scope.inside:
                yield from self._of_attribute(node, scope, path)
            case ast.Call():
                yield from self._of_call(node, scope, path)

    def _all(self, nodes: Iterable[ast.expr | None], scope: Scope, path: Way) -> Iterator[str]:
        for node in nodes:
            if node is not None:
                yield from self._of(node, scope, path)

    def _of_items(self, nodes: list[ast.expr], scope: Scope, path: Way) -> Iterator[str]:
        step, rest = path[0], path[1:]
        for i, node in enumerate(nodes):
            if isinstance(node, ast.Starred):
                yield from self._of(node.value, scope, path)
            elif step == "each" or step in (i, i - len(nodes)):
                yield from self._of(node, scope, rest)

    def _of_f_string(self, node: ast.JoinedStr, scope: Scope) -> Iterator[str]:
        """The text with its places, and beside it the sentences that may fill them."""
        own = sum(c.isalpha() for part in node.values if isinstance(part, ast.Constant) for c in str(part.value))
        ways: list[list[str]] = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                ways.append([str(part.value)])
                continue
            within: list[str] = []
            if isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None:
                named = (
                    own < OWN_LETTERS
                    if isinstance(part.value, ast.Name)
                    else not own and isinstance(part.value, ast.Attribute)
                )
                texts = self._of(part.value, replace(scope, inside=max(scope.inside, int(not named))), ())
                within = sorted(text for text in texts if _says(text, part.value))
                within += [""] if within and "" in texts else []
                within += [PLACE] if within and own < OWN_LETTERS and len(within) < len(texts) else []
            apart = own >= OWN_LETTERS or _is_list(part)
            ways.append(within if within and not apart else [PLACE])
            if apart:
                yield from within
        yield from ("".join(way) for way in itertools.islice(itertools.product(*ways), 400))

    def _joined(self, nodes: list[ast.expr], scope: Scope) -> Iterator[str]:
        ways = [sorted(self._of(node, scope, ())) or [PLACE] for node in nodes if not _is_cut(node)]
        ways = ways if len(ways) == len(nodes) else []
        yield from ("".join(way) for way in itertools.islice(itertools.product(*ways), 400))

    def _of_subscript(self, node: ast.Subscript, scope: Scope, path: Way) -> Iterator[str]:
        match node:
            case ast.Subscript(slice=ast.Slice()):
                yield from self._of(node.value, scope, path)
            case ast.Subscript(
                value=ast.Call(
                    func=ast.Attribute(attr="split" | "partition" as how, value=of), args=[ast.Constant(value=str(by))]
                ),
                slice=ast.Constant(value=int(at)),
            ) if not path:
                for text in self._of(of, scope, ()):
                    yield from getattr(text, how)(by)[at : at + 1]
            case ast.Subscript(slice=ast.Constant(value=int(at))):
                yield from self._of(node.value, scope, (at, *path))
            case _:
                yield from self._of(node.value, scope, ("each", *path))

    def _of_name(self, name: str, scope: Scope, path: Way) -> Iterator[str]:
        for i, function in enumerate(scope.functions):
            here = replace(scope, functions=scope.functions[i:])
            values = self._names_of(function).get(name, [])
            for value in values:
                yield from self._of(value.expression, here, (*value.path, *path))
            if name in _parameters(function) and scope.inside <= MOST_HOPS:
                yield from self._of_parameter(name, function, here, path)
            if values or name in _parameters(function):
                return
        module = scope.module
        for value in module.names.get(name, []):
            yield from self._of(value.expression, replace(scope, functions=()), (*value.path, *path))
        if name in module.imports:
            home, its_name = module.imports[name]
            if home in self._modules and its_name in self._modules[home].names:
                yield from self._of_name(its_name, Scope(self._modules[home], inside=scope.inside), path)

    def _names_of(self, function: Function) -> dict[str, list[Value]]:
        if function not in self._assigned:
            self._assigned[function] = _assigned(function.body)
        return self._assigned[function]

    def _of_parameter(self, name: str, function: Function, scope: Scope, path: Way) -> Iterator[str]:
        """What the callers of a function give for a parameter, and its default."""
        names = _parameters(function)
        method = names[:1] in (["self"], ["cls"])
        place = names.index(name) - method
        yield from self._all([_defaults(function).get(name)], replace(scope, functions=scope.functions[1:]), path)
        for call, where in self._callers(function, scope.module, method):
            where = replace(where, inside=scope.inside and scope.inside + 1)
            positional = [*function.args.posonlyargs, *function.args.args]
            if 0 <= place < min(len(call.args), len(positional) - method):
                yield from self._of(call.args[place], where, path)
            yield from self._all([word.value for word in call.keywords if word.arg == name], where, path)

    def _callers(self, function: Function, module: Module, method: bool) -> Iterator[tuple[ast.Call, Scope]]:
        name = function.name
        if name == "__init__":
            owner = next((c.name for c in module.classes.values() if function in c.body), "")
            name, method = owner, False
        for call, where in self._calls.get(name, []):
            if method == isinstance(call.func, ast.Attribute) and (method or self._is_here(name, where.module, module)):
                yield call, where

    def _is_here(self, name: str, where: Module, home: Module) -> bool:
        """Whether a name in ``where`` is that of ``home``."""
        return where is home or where.imports.get(name) in ((home.name, name), (home.name.rpartition(".")[0], name))

    def _of_attribute(self, node: ast.Attribute, scope: Scope, path: Way) -> Iterator[str]:
        """A field or property of a value of the package. What an error says (``error.why``) is found where that is raised."""
        name = node.attr
        for module, owner, place, kind in self._fields.get(name, []):
            if not self._is_here(owner, scope.module, module):
                continue
            for call, where in self._calls.get(owner, []):
                if self._is_here(owner, where.module, module) and isinstance(call.func, ast.Name):
                    if place < len(call.args) and not any(isinstance(a, ast.Starred) for a in call.args[: place + 1]):
                        yield from self._of(call.args[place], where, path)
                    yield from self._all([word.value for word in call.keywords if word.arg == name], where, path)
            for told, where in module.functions.get("__str__", []) if kind in module.classes else ():
                if told in module.classes[kind].body:
                    yield from self._returned(told, where, path)
        for value, where in self._set.get((scope.module, name), []):
            yield from self._of(value, where, path)
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            for function, where in scope.module.functions.get(name, []):
                if any(getattr(d, "id", "").endswith("property") for d in function.decorator_list):
                    yield from self._returned(function, where, path)

    def _of_call(self, node: ast.Call, scope: Scope, path: Way) -> Iterator[str]:
        match node:
            case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id=name)]) if (
                _is_caught(name, scope) and not scope.inside
            ):
                for value, where in self._raised.get(scope.module.room, []):
                    yield from self._of(value, where, path)
            case ast.Call(func=ast.Name(id="str"), args=[of]):
                yield from self._of(of, scope, path)
            case ast.Call(func=ast.Name(id="next"), args=[of, *default]):
                yield from self._of(of, scope, ("each", *path))
                yield from self._all(default, scope, path)
            case ast.Call(func=ast.Name(id="map"), args=[ast.Name() as made, *_]) if path:
                for function, where in self._called(ast.Call(made, [], []), scope):
                    yield from self._returned(function, where, path[1:])
            case ast.Call(func=ast.Name(id="filter"), args=[_, of]) if path:
                yield from self._of(of, scope, path)
            case ast.Call(func=ast.Name(id=name), args=[of, *_]) if name in _SAME_ITEMS and path:
                yield from self._of(of, scope, path)
            case ast.Call(func=ast.Name(id="enumerate"), args=[of, *_]) if path[:2] == ("each", 1):
                yield from self._of(of, scope, ("each", *path[2:]))
            case ast.Call(func=ast.Name(id="zip"), args=several) if len(path) > 1 and isinstance(path[1], int):
                yield from self._all(several[path[1] : path[1] + 1], scope, ("each", *path[2:]))
            case ast.Call(func=ast.Attribute(attr="items", value=of), args=[]) if path[:2] in (
                ("each", 0),
                ("each", 1),
            ):
                yield from self._of(of, scope, ("each", *path[2:])) if path[1] == 1 else ()
                if path[1] == 0:
                    yield from self._keys(of, scope, path[2:])
            case ast.Call(func=ast.Attribute(attr="values", value=of), args=[]) if path:
                yield from self._of(of, scope, path)
            case ast.Call(func=ast.Attribute(attr="get", value=of), args=[_, *default]):
                yield from self._of(of, scope, ("each", *path))
                yield from self._all(default, scope, path)
            case ast.Call(func=ast.Attribute(attr="join", value=ast.Constant(value=str(by))), args=[of]) if not path:
                if isinstance(of, ast.Call) and getattr(of.func, "attr", "") == "split":
                    assert isinstance(of.func, ast.Attribute)
                    yield from self._of(of.func.value, scope, ())
                else:
                    found = self._of(of, scope, ("each",))
                    yield from (text for text in found if by == "; " or " " in text.strip())
            case ast.Call(func=ast.Attribute(attr="format", value=of)) if not path:
                yield from (_SLOT.sub(PLACE, text) for text in self._of(of, scope, ()))
            case ast.Call(func=ast.Attribute(attr=name, value=of)) if name in _SAME and not path:
                yield from self._of(of, scope, path)
            case _:
                for function, where in self._called(node, scope):
                    yield from self._returned(function, where, path)

    def _keys(self, of: ast.expr, scope: Scope, path: Way) -> Iterator[str]:
        """The keys of a table that is written out, or that was filled by ``table[key] = ...``."""
        if isinstance(of, ast.Dict):
            yield from self._all(of.keys, scope, path)
        elif isinstance(of, ast.Name):
            for function in scope.functions:
                for node in ast.walk(function):
                    if (
                        isinstance(node, ast.Subscript)
                        and isinstance(node.ctx, ast.Store)
                        and _name(node.value) == of.id
                    ):
                        yield from self._of(node.slice, scope, path)

    def _called(self, node: ast.Call, scope: Scope) -> list[tuple[Function, Scope]]:
        """The functions of the package that a call may be of."""
        name = _name(node.func)
        module = scope.module
        if isinstance(node.func, ast.Attribute):
            of = node.func.value
            if not isinstance(of, ast.Name) or (of.id not in ("self", "cls") and of.id not in module.imports):
                return []
            if of.id in module.imports:
                module = self._modules.get(".".join(module.imports[of.id]), scope.module)
        elif name in module.imports:
            home, name = module.imports[name]
            if home not in self._modules:
                return []
            module = self._modules[home]
        functions = [] if module is None else module.functions.get(name, [])
        return [
            (function, replace(where, inside=scope.inside))
            for function, where in functions
            if _gives_text(function, where.module)
        ]

    def _returned(self, function: Function, scope: Scope, path: Way) -> Iterator[str]:
        inner = replace(scope, functions=(function, *scope.functions))
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and node.value is not None:
                yield from self._of(node.value, inner, path)
            elif isinstance(node, ast.Yield) and node.value is not None and path:
                yield from self._of(node.value, inner, path[1:])
            elif isinstance(node, ast.YieldFrom) and path:
                yield from self._of(node.value, inner, path)


def _name(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _gives_text(function: Function, module: Module) -> bool:
    """Whether what a function returns may hold a text, by its annotation."""
    if function.returns is None:
        return False
    named = [value for node in ast.walk(function.returns) for value in module.names.get(_name(node), [])]
    return any("str" in ast.unparse(one) for one in (function.returns, *(value.expression for value in named)))


def _is_list(part: ast.expr) -> bool:
    """Whether what fills a place is joined from several, each with a form of its own."""
    return (
        isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Call) and _name(part.value.func) == "join"
    )


def _is_cut(node: ast.expr) -> bool:
    """Whether it is a part of a text, as of ``text[:1].upper() + text[1:]``."""
    return any(isinstance(part, ast.Slice) for part in ast.walk(node))


def _says(text: str, filled: ast.expr) -> bool:
    """Whether a text that fills a place is words: several, or one that is chosen right there."""
    return " " in text.strip() or (isinstance(filled, ast.IfExp) and text.isalpha())


def _parameters(function: Function) -> list[str]:
    given = function.args
    return [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def _defaults(function: Function) -> dict[str, ast.expr]:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    found = dict(
        zip([one.arg for one in positional[len(positional) - len(given.defaults) :]], given.defaults, strict=True)
    )
    return found | {
        one.arg: value for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if value is not None
    }


def _is_caught(name: str, scope: Scope) -> bool:
    return any(
        isinstance(node, ast.ExceptHandler) and node.name == name for one in scope.functions for node in ast.walk(one)
    )


def _assigned(body: list[ast.stmt]) -> dict[str, list[Value]]:
    """By name, what was assigned to it, or put into it."""
    found: dict[str, list[Value]] = {}
    for statement in body:
        for node in ast.walk(statement):
            for name, value in _bound(node):
                found.setdefault(name, []).append(value)
    return found


def _bound(node: ast.AST) -> Iterator[tuple[str, Value]]:
    match node:
        case ast.Assign():
            for target in node.targets:
                yield from _to(target, Value(node.value))
        case ast.AnnAssign() | ast.NamedExpr() if node.value is not None:
            yield from _to(node.target, Value(node.value))
        case ast.AugAssign(op=ast.Add()):
            yield from _to(node.target, Value(ast.BinOp(_loaded(node.target), ast.Add(), node.value)))
        case ast.For() | ast.comprehension():
            yield from _to(node.target, Value(node.iter, ("each",)))
        case ast.Call(func=ast.Attribute(attr="append" | "add", value=ast.Name(id=name)), args=[one]):
            yield name, Value(ast.List([one]))
        case ast.Call(func=ast.Attribute(attr="extend" | "update", value=ast.Name(id=name)), args=[several]):
            yield name, Value(several)


def _loaded(target: ast.expr) -> ast.expr:
    return ast.Name(target.id, ast.Load()) if isinstance(target, ast.Name) else target


def _to(target: ast.expr, value: Value) -> Iterator[tuple[str, Value]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple):
        for i, part in enumerate(target.elts):
            yield from _to(part, Value(value.expression, (*value.path, i)))
    elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
        yield target.value.id, Value(ast.List([value.expression]))
