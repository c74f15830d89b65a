"""The package as a whole: its wings, its one door, what importing it does not do, and its measures."""

import ast
import inspect
import io
import itertools
import json
import re
import subprocess
import sys
import threading
import tokenize
import tomllib
from collections import deque
from collections.abc import Iterator
from contextvars import Context
from functools import lru_cache
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import sse_asgi

PACKAGE = "sse_asgi"
SOURCE = Path(sse_asgi.__file__).parent

# A row imports from its own row and from those above it in this list, never from one below. A wing is a folder; the
# empty name is the package itself, its one door.
WINGS = (
    ("encoder", "decoder", "exceptions"),
    ("_loop",),
    ("_servers",),
    ("_log",),
    ("dialects",),
    ("backends",),
    ("_hub",),
    ("_stream",),
    ("_mount",),
    ("tickets", "testing"),
    ("config",),
    ("publisher",),
    ("",),
    ("_demo",),
    ("__main__",),
)

# Which modules, or all of which wings, may import what is not the standard library's nor anyio.
STRANGERS: dict[str, set[str]] = {
    "starlette": {"_servers", "_stream", "_mount", "config", "testing"},
    "pydantic_core": {"_log.event", "dialects"},
    "redis": {"backends.redis._address", "backends.redis._endpoint", "backends.redis._url"},
    "hiredis": {"backends.redis._resp"},
    "itsdangerous": {"_mount.tickets"},
    "trio": {"_loop._trio"},
    "fastapi": {"_demo"},
    "uvicorn": {"_demo"},
}

MAX_BODY_LINES = 30
MAX_MODULE_LINES = 300

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | FunctionNode


def module_name(path: Path) -> str:
    """Name a file as it is imported, relative to the package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


class Import(NamedTuple):
    """One import statement's target, by its full name, and whether it stands inside a function."""

    target: str
    in_function: bool


def imports(module: str) -> Iterator[Import]:
    """Find every import of a module, those for types only and those inside functions included."""
    nodes = [(child, False) for child in ast.iter_child_nodes(ast.parse(PATHS[module].read_text()))]
    while nodes:
        node, in_function = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (Import(name.name, in_function) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(target, in_function) for target in _targets(module, node))
        in_function = in_function or isinstance(node, FunctionNode)
        nodes += [(child, in_function) for child in ast.iter_child_nodes(node)]


def _targets(module: str, node: ast.ImportFrom) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        is_package = PATHS[module].name == "__init__.py"
        here = [PACKAGE, *filter(None, module.split("."))]
        parents = here[: len(here) - node.level + is_package]
        base = ".".join([*parents, *filter(None, [node.module])])
    for name in node.names:
        inner = f"{base}.{name.name}"
        yield inner if inner.removeprefix(f"{PACKAGE}.") in PATHS else base


def own_imports(module: str) -> set[str]:
    """Name the modules of the package that a module imports."""
    targets = {one.target for one in imports(module)}
    return {
        target.removeprefix(PACKAGE).removeprefix(".") for target in targets if (target + ".").startswith(f"{PACKAGE}.")
    }


# Wings


def wing_of(module: str) -> str:
    """Name the folder, or the module at the top, that a module belongs to."""
    return module.partition(".")[0]


LEVELS = {wing: level for level, row in enumerate(WINGS) for wing in row}


def test_every_module_belongs_to_a_wing() -> None:
    """The table names each folder and each module at the top, and nothing that does not exist."""
    assert {wing_of(module) for module in PATHS} == LEVELS.keys()


@pytest.mark.parametrize("module", PATHS)
def test_no_import_goes_upward(module: str) -> None:
    """A module imports from its own wing or from a lower one, and neighbours of one row do not know each other."""
    here = wing_of(module)
    others = {name for name in own_imports(module) if wing_of(name) != here}
    assert {name for name in others if LEVELS[wing_of(name)] > LEVELS[here]} == set()


@pytest.mark.parametrize("wing", LEVELS)
def test_there_is_no_circle_inside_a_wing(wing: str) -> None:
    """The modules of a wing can be put in an order in which each imports from earlier ones only, types included."""
    inside = {name: own_imports(name) for name in PATHS if wing_of(name) == wing}
    order = [*TopologicalSorter({name: found & inside.keys() for name, found in inside.items()}).static_order()]
    assert set(order) == inside.keys()


def test_the_imports_that_the_wings_are_judged_by_are_found() -> None:
    """The reader of imports sees plain, relative, inner and parents' ones, so that an empty result means none."""
    assert {"_log.event", "_log.position", "backends.base"} <= own_imports("backends.memory")
    assert {"_mount.app", "backends.base", "exceptions"} < own_imports("")
    assert Import("trio", in_function=True) in set(imports("_loop._trio"))
    assert Import("asyncio", in_function=False) in set(imports("_loop.timer"))


@pytest.mark.parametrize("module", PATHS)
def test_a_stranger_is_imported_only_where_it_belongs(module: str) -> None:
    """Starlette is in the wings of HTTP, pydantic and trio in one place each, Redis in its backend."""
    tops = {one.target.partition(".")[0] for one in imports(module)}
    strangers = tops - set(sys.stdlib_module_names) - {"anyio", PACKAGE}
    assert {name for name in strangers if STRANGERS.get(name, set()).isdisjoint({module, wing_of(module)})} == set()


@pytest.mark.parametrize("stranger", ["trio", "pydantic_core", "itsdangerous"])
def test_what_may_be_missing_is_imported_when_it_is_needed(stranger: str) -> None:
    """Optional libraries are imported inside functions only."""
    found = [one for module in PATHS for one in imports(module) if one.target.partition(".")[0] == stranger]
    assert found
    assert all(one.in_function for one in found)


# State

# What cannot be a constant.
CHANGEABLE: tuple[Any, ...] = (Context, deque, type(lru_cache(len)), type(threading.Lock()), threading.local)
CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}


def assigned(module: str) -> set[str]:
    """Name what a module assigns, or defines as a function, on its own first level."""
    tree = ast.parse(PATHS[module].read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AnnAssign | ast.For)]
    functions = {node.name for node in tree.body if isinstance(node, FunctionNode)}
    targets = [target for node in nodes for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    return functions | {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def changed(module: str) -> Iterator[str]:
    """Name what a module changes in place."""
    for node in ast.walk(ast.parse(PATHS[module].read_text())):
        stored = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        if isinstance(node, ast.Subscript | ast.Attribute) and (stored or getattr(node, "attr", "") in CHANGES):
            yield ast.unparse(node.value)
        elif isinstance(node, ast.AugAssign):
            yield ast.unparse(node.target)


CHANGED = {name.rpartition(".")[2] for module in PATHS for name in changed(module)}


@pytest.mark.parametrize("module", PATHS)
def test_a_module_has_no_state(module: str) -> None:
    """No cache, lock or context, and only containers that are constants: nothing is shared between event loops."""
    if module == "__main__":
        return  # it runs when it is imported, and has names of its own in functions only
    names = vars(import_module(f"{PACKAGE}.{module}".rstrip(".")))
    values = {name: names[name] for name in assigned(module) & names.keys() if not name.startswith("__")}
    containers = {name for name, value in values.items() if isinstance(value, list | dict | set | bytearray)}
    assert {name for name, value in values.items() if isinstance(value, CHANGEABLE)} == set()
    assert {name for name in containers if name != name.upper() or name in CHANGED} == set()
    assert not [node for node in ast.walk(ast.parse(PATHS[module].read_text())) if isinstance(node, ast.Global)]


# The one door


def public_names() -> set[str]:
    """Name what a user of the package sees in it, submodules apart."""
    return {
        name for name, value in vars(sse_asgi).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }


def test_all_is_sorted_and_complete() -> None:
    """Everything public is in __all__ once, and nothing else is."""
    assert sse_asgi.__all__ == sorted(public_names())


@pytest.mark.parametrize("name", sse_asgi.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    """Each public object, its public methods and properties have docstrings of their own."""
    value = getattr(sse_asgi, name)
    members = vars(value) if inspect.isclass(value) else {}
    documentable = {
        f"{name}.{key}": member.__doc__
        for key, member in members.items()
        if not key.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    }
    documentable[name] = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert [key for key, doc in documentable.items() if not inspect.cleandoc(doc or "")] == []


def test_the_version_is_the_distributions() -> None:
    """The package knows its version without keeping a copy of it."""
    assert sse_asgi.__version__ == version("sse-asgi")


def test_another_attribute_is_an_attribute_error() -> None:
    """What the package has not is refused as in any other module."""
    with pytest.raises(AttributeError, match="module 'sse_asgi' has no attribute 'Broker'"):
        sse_asgi.Broker  # noqa: B018


def test_the_lowest_versions_are_tested() -> None:
    """What scripts/lowest installs is what pyproject.toml allows at the least."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    lowest = {re.sub(r"\[.*\]", "", name): version for name, version in (one.split(">=") for one in declared)}
    tested = (root / "requirements-lowest.txt").read_text().split("\n\n")[0]
    pins = dict(line.split("==") for line in tested.splitlines() if "==" in line)
    assert {name: version_of(pins[name]) for name in pins} == {name: version_of(lowest[name]) for name in lowest}


def version_of(text: str) -> tuple[int, ...]:
    """Read a version: 0.46 is 0.46.0."""
    return tuple(int(part) for part in (text + ".0").split("."))[:3]


DOORS = {
    "backends.base": ["Backend", "Member", "Sink"],
    "backends.memory": ["MemoryBackend"],
    "backends.redis": ["RedisBackend"],
    "config": ["Settings", "create_hub"],
    "dialects": ["AG_UI", "AI_SDK", "ANTHROPIC", "Dialect", "OPENAI"],
    "decoder": ["DecodedEvent", "EventDecoder"],
    "encoder": ["encode"],
    "exceptions": ["BackendError", "HubClosedError", "PublishUnknownError", "SSEError", "SlowReaderError"],
    "publisher": ["Publisher"],
    "testing": ["EventStream", "EventStreamClient"],
    "tickets": ["ChannelSigner", "RedactTickets", "Ticket", "TicketError"],
}


@pytest.mark.parametrize("door", DOORS)
def test_a_public_name_is_in_its_public_place(door: str) -> None:
    """Users import these names from these modules, wherever the code behind them stands."""
    module = import_module(f"{PACKAGE}.{door}")
    assert [name for name in DOORS[door] if not hasattr(module, name)] == []


# Importing

IMPORT = """
import gc, json, signal, sys, threading
import asyncio, logging

def handlers():
    return {number: repr(signal.getsignal(number)) for number in signal.valid_signals()}

def loops():
    return sum(isinstance(one, asyncio.AbstractEventLoop) for one in gc.get_objects())

before = handlers(), loops(), threading.active_count(), len(logging.root.handlers)
import sse_asgi
after = handlers(), loops(), threading.active_count(), len(logging.root.handlers)
print(json.dumps({
    "signal handlers": before[0] == after[0],
    "event loops": before[1] == after[1],
    "threads": before[2] == after[2],
    "logging handlers": before[3] == after[3] and not logging.getLogger("sse_asgi").handlers,
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture(scope="module")
def fresh() -> Any:
    """Import the package in a new interpreter, and look around before and after."""
    run = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("what", ["signal handlers", "event loops", "threads", "logging handlers"])
def test_importing_changes_nothing(fresh: dict[str, bool], what: str) -> None:
    """Signal handlers, event loops, threads and logging handlers are after the import what they were before."""
    assert fresh[what]


@pytest.mark.parametrize(
    "name", ["fastapi", "uvicorn", "redis", "trio", "pydantic", "itsdangerous", "logging.handlers"]
)
def test_importing_does_not_import(fresh: dict[str, list[str]], name: str) -> None:
    """What only some users need is not imported for all."""
    assert name not in fresh["modules"]


# Measures


def docstring_lines(tree: ast.AST) -> set[int]:
    """Number the lines of all docstrings."""
    nodes = [node.body[0] for node in ast.walk(tree) if isinstance(node, Documented) and ast.get_docstring(node)]
    return {line for node in nodes for line in range(node.lineno, (node.end_lineno or 0) + 1)}


def code_lines(source: str) -> set[int]:
    """Number the lines that are neither blank nor only a comment."""
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {line for token in tokens if token.type not in blank for line in range(token.start[0], token.end[0] + 1)}


def body_lines(function: FunctionNode) -> int:
    """Count the lines of a function below its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("module", PATHS)
def test_no_function_is_long(module: str) -> None:
    """No function's body has more than 30 lines, its docstring apart."""
    functions = [node for node in ast.walk(ast.parse(PATHS[module].read_text())) if isinstance(node, FunctionNode)]
    assert {one.name: body_lines(one) for one in functions if body_lines(one) > MAX_BODY_LINES} == {}


@pytest.mark.parametrize("module", PATHS)
def test_no_module_is_long(module: str) -> None:
    """No module has more than 300 lines, docstrings, blank lines and comments apart."""
    source = PATHS[module].read_text()
    assert len(code_lines(source) - docstring_lines(ast.parse(source))) <= MAX_MODULE_LINES


@pytest.mark.parametrize("module", PATHS)
def test_a_module_says_what_it_does(module: str) -> None:
    """The first line of a module's docstring is a sentence, or a heading that the next lines explain."""
    first = (ast.get_docstring(ast.parse(PATHS[module].read_text())) or "").split("\n\n")[0]
    assert re.search(r"[.:]$", first)
