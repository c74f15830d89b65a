"""No module has state: nothing that one call leaves behind is there for another one, or for another event loop.

Every value that a module makes must be known not to change. A value of an unknown type counts as state. A LoopVar is
allowed, because each event loop has its own value. A dict, list or set is allowed as a constant: its name is in
capitals, and no module of the package changes it.
"""

import ast
from _collections import _tuplegetter  # type: ignore[import-not-found] # the fields of a NamedTuple
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cached_property, partial
from importlib import import_module
from json import JSONDecoder, JSONEncoder
from logging import Logger
from re import Pattern
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodWrapperType,
    ModuleType,
    NoneType,
)
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_origin

import pytest

from modules import PACKAGE, PATHS, functions_of, tree_of
from sse_asgi._loop.running import LoopVar

CONSTANT: tuple[type[Any], ...] = (
    *(
        str,
        bytes,
        int,
        float,
        NoneType,
        Pattern,
        Logger,
        LoopVar,
        ParamSpec,
        TypeVar,
        JSONDecoder,
        JSONEncoder,
        pytest.MarkDecorator,
        type(pytest.fixture(lambda: None)),
        MappingProxyType,
        ModuleType,
    ),
    *(BuiltinFunctionType, MethodWrapperType, MemberDescriptorType, GetSetDescriptorType, _tuplegetter),
)
CONTAINERS = (dict, list, set)
CHANGES = {name for kind in CONTAINERS for name in dir(kind)} - {
    name for kind in (tuple, frozenset, MappingProxyType) for name in dir(kind)
}
GENERATED = vars(NamedTuple("Sample", [("x", int)])).keys() | vars(Enum("Sample", "X")).keys() | {"_abc_impl"}

HELD: tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...] = (
    ((tuple, frozenset), iter),
    ((staticmethod, classmethod), lambda value: [value.__func__]),
    (property, lambda value: [value.fget, value.fset, value.fdel]),
    (cached_property, lambda value: [value.func]),  # the value is kept by each object
    (partial, lambda value: [value.func, *value.args, *value.keywords.values()]),
)

Parts = list[tuple[str, Any]]


def state_of(module: ModuleType, tree: ast.Module, changed: set[str]) -> set[str]:
    """Name every value of a module that could change."""
    imported = {
        (one.asname or one.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for one in node.names
    }
    seen: set[int] = set()
    found = set(rebound(module, tree))
    for name, value in vars(module).items():
        if name not in imported and (not _is_dunder(name) or isinstance(value, FunctionType)):
            found.update(changeable(name, value, changed, seen))
    return found


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


# Values


def changeable(name: str, value: Any, changed: set[str], seen: set[int]) -> Iterator[str]:
    """Name this value if it can change, and everything in it that can."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, CONTAINERS):
        parts: Parts | None = None
        if name == name.upper() and name not in changed:
            parts = [(name, one) for one in (value.values() if isinstance(value, dict) else value)]
    else:
        parts = parts_of(name, value)
    if parts is None:
        yield name
    for key, part in parts or ():
        yield from changeable(key, part, changed, seen)


def parts_of(name: str, value: Any) -> Parts | None:
    """Return the values in a value, with their names; None if the value can change itself."""
    if isinstance(value, CONSTANT) or type(value) is object or get_origin(value) is not None:
        return []
    if type(value).__module__ == "dataclasses":  # the mark of a default that is made for each object
        return []
    for kinds, held in HELD:
        if isinstance(value, kinds):
            return [(name, one) for one in held(value)]
    if isinstance(value, FunctionType | type):
        parts = _kept_by(value) if isinstance(value, FunctionType) else _of_class(value)
        return parts if _is_ours(value) else []
    return _of_object(value) if _is_ours(type(value)) else None


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith(PACKAGE)


def _kept_by(function: FunctionType) -> Parts:
    attributes = [one for name, one in vars(function).items() if name != "pytestmark"]
    kept = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *attributes]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [(f"kept by {function.__qualname__}", one) for one in (*kept, *cells)]


def _of_class(value: type) -> Parts:
    attributes = {name: one for name, one in vars(value).items() if name not in GENERATED}
    return [(name, one) for name, one in attributes.items() if not _is_dunder(name) or callable(one)]


def _of_object(value: Any) -> Parts:
    slots = [name for one in type(value).__mro__ for name in vars(one).get("__slots__", ()) if hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).items(), *((name, getattr(value, name)) for name in slots)]


# Changes in place


def constants_in(node: ast.AST) -> set[str]:
    """Name every constant that an expression mentions, also as an attribute of its module."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    names |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
    return {name for name in names if name == name.upper()}


def names_in(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def changed_places(tree: ast.AST) -> Iterator[ast.AST]:
    """Find every expression whose value is changed in place."""
    for node in ast.walk(tree):
        item_is_set = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        if isinstance(node, ast.Subscript | ast.Attribute) and (item_is_set or getattr(node, "attr", "") in CHANGES):
            yield node.value
        elif isinstance(node, ast.AugAssign):
            yield node.target


def changed_constants(tree: ast.AST) -> set[str]:
    """Name every constant that is changed in place, by its own name or by another one that a function gives to it."""
    found = {name for place in changed_places(tree) for name in constants_in(place)}
    for function in functions_of(tree):
        names = {name for place in changed_places(function) for name in names_in(place)}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign | ast.NamedExpr) and isinstance(node.value, ast.Name | ast.Attribute):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(names_in(target) & names for target in targets):
                    found |= constants_in(node.value)
    return found


def rebound(module: ModuleType, tree: ast.AST) -> Iterator[str]:
    """Name every global name, and every attribute of a module, class or function, that is set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) and _is_shared(module, node.value):
            yield ast.unparse(node)


def _is_shared(module: ModuleType, node: ast.AST) -> bool:
    """Return True if an expression is a module, a class or a function."""
    if isinstance(node, ast.Name):
        return node.id == "cls" or isinstance(vars(module).get(node.id), ModuleType | type | FunctionType)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "type"
    return isinstance(node, ast.Attribute) and node.attr == "__class__"


CHANGED = {name for module in PATHS for name in changed_constants(tree_of(module))}


@pytest.mark.parametrize("module", PATHS)
def test_a_module_has_no_state(module: str) -> None:
    """No cache, no lock, and no container that changes."""
    assert state_of(import_module(f"{PACKAGE}.{module}".rstrip(".")), tree_of(module), CHANGED) == set()


STATEFUL = {
    "a cache": "from functools import cache\n@cache\ndef one(): return 1",
    "a cache of a method": "from functools import cache\nclass One:\n @cache\n def one(self): return 1",
    "a cache in a static method": "import functools\nclass One:\n one = staticmethod(functools.cache(lambda: 1))",
    "a cache behind a property": "import functools\nclass One:\n one = property(functools.cache(lambda self: 1))",
    "a container": "one = []",
    "a constant that is changed": "ONE = {}\ndef change(key): ONE[key] = 1",
    "a constant that is changed by a method": "ONE = set()\ndef change(key): ONE.add(key)",
    "a constant that is changed by an operator": "ONE = set()\ndef change(key):\n global ONE\n ONE |= {key}",
    "a constant with a second name": "ONE = {}\ndef change(key):\n one = ONE\n one[key] = 1",
    "a container in a constant": "ONE = ([],)\ndef change(key): ONE[0].append(key)",
    "a container of a class": "class One:\n one = []",
    "a container of an object": "class One:\n def __init__(self): self.one = []\nONE = One()",
    "a container of an object with slots": "class One:\n __slots__ = ('one',)\nONE = One()\nONE.one = []",
    "a default": "def one(key, seen=[]): seen.append(key)",
    "a keyword's default": "def one(key, *, seen=[]): seen.append(key)",
    "a closure": "def make():\n seen = []\n return lambda key: seen.append(key)\none = make()",
    "a partial": "from functools import partial\none = partial(print, [])",
    "a count": "from itertools import count\nONE = count()",
    "a lock": "import threading\nONE = threading.Lock()",
    "a deque": "from collections import deque\nONE = deque()",
    "a weak dictionary": "import weakref\nONE = weakref.WeakKeyDictionary()",
    "a global name": "ONE = 0\ndef change():\n global ONE\n ONE = 1",
    "an attribute of a function": "def one(): one.count = 1",
    "an attribute of a class": "class One:\n one = 0\n def change(self): One.one += 1",
    "an attribute of its own class": "class One:\n one = 0\n def change(self): type(self).one += 1",
    "an attribute of `cls`": "class One:\n one = 0\n @classmethod\n def change(cls): cls.one += 1",
    "an attribute of a module": "import json\ndef change(): json.one = 1",
}

STATELESS = {
    "constants": "import re\nONE, TWO = (1, 'x', frozenset({2})), re.compile('x')",
    "a table": "ONE = {'a': len}\ndef look(key): return ONE[key]",
    "a variable of each event loop": "from sse_asgi._loop.running import LoopVar\n_one = LoopVar(list)",
    "an object with constants": "class One:\n def __init__(self): self.one = 1\nONE = One()",
    "an imported cache": "from urllib.parse import urlsplit",
    "a named tuple": "from typing import NamedTuple\nclass One(NamedTuple):\n one: int = 1\nONE = One()",
    "an enum": "from enum import Enum\nclass One(Enum):\n ONE = 1\nONE = One.ONE",
}


def sample(source: str) -> set[str]:
    module = ModuleType(f"{PACKAGE}.sample")
    exec(source, vars(module))
    tree = ast.parse(source)
    return state_of(module, tree, changed_constants(tree))


@pytest.mark.parametrize("case", STATEFUL)
def test_state_is_found(case: str) -> None:
    """So that an empty result means that there is none."""
    assert sample(STATEFUL[case]) != set()


@pytest.mark.parametrize("case", STATELESS)
def test_constants_are_not_state(case: str) -> None:
    """Nothing is found in a module without state."""
    assert sample(STATELESS[case]) == set()
