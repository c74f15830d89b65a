"""The package as a whole: its wings, public names, loggers, tests, import and sizes."""

import ast
import inspect
import io
import itertools
import json
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import sse_asgi
from modules import PACKAGE, PATHS, SOURCE, TESTS, FunctionNode, functions_of, tree_of, wing_of

# A row imports from its own row and from the rows above it in this list, never from one below. A wing is a folder. The
# empty name is the package itself.
WINGS = (
    ("encoder", "decoder", "exceptions"),
    ("_loop",),
    ("_servers",),
    ("_log",),
    ("dialects",),
    ("backends",),
    ("_hub",),
    ("_annotations", "_openapi"),
    ("fastapi",),
    ("_stream",),
    ("_mount",),
    ("telemetry", "tickets", "testing"),
    ("config",),
    ("publisher",),
    ("",),
    ("_cli", "_demo"),
    ("__main__",),
)

# The modules and wings that may import each library, apart from the standard library and anyio.
LIBRARIES: dict[str, set[str]] = {
    "starlette": {"_servers", "_stream", "fastapi", "_mount", "config", "telemetry", "testing"},
    "opentelemetry": {"telemetry"},
    "pydantic": {"_log.models", "_openapi", "fastapi"},
    "pydantic_core": {"_log.event", "dialects"},
    "redis": {"backends.redis._address", "backends.redis._endpoint", "backends.redis._url"},
    "hiredis": {"backends.redis._resp"},
    "itsdangerous": {"_mount.tickets"},
    "trio": {"_loop._trio"},
    "fastapi": {"fastapi", "_demo"},
    "uvicorn": {"_demo", "testing._live"},
    "pytest": {"testing.contract", "testing.contract._base", "testing.contract._pages", "testing.plugin"},
    "httpx": {"_cli"},
    "rich": {"_cli"},
    "typer": {"_cli"},
}

MAX_BODY_LINES = 30
MAX_MODULE_LINES = 300
MAX_ATTRIBUTES = 15

Documented = ast.Module | ast.ClassDef | FunctionNode


class Import(NamedTuple):
    """The full name that an import statement imports, and whether the statement is inside a function."""

    target: str
    in_function: bool


def imports(module: str) -> Iterator[Import]:
    """Find every import of a module, also those for types only and those inside functions."""
    nodes = [(child, False) for child in ast.iter_child_nodes(tree_of(module))]
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
    """Return the modules of the package that a module imports."""
    targets = {one.target for one in imports(module)}
    return {
        target.removeprefix(PACKAGE).removeprefix(".") for target in targets if (target + ".").startswith(f"{PACKAGE}.")
    }


# Wings


LEVELS = {wing: level for level, row in enumerate(WINGS) for wing in row}


def test_every_module_belongs_to_a_wing() -> None:
    """The table names each folder and each module at the top, and no others."""
    assert {wing_of(module) for module in PATHS} == LEVELS.keys()


@pytest.mark.parametrize("module", PATHS)
def test_no_import_goes_upward(module: str) -> None:
    """A module imports from its own wing or from a lower one. Wings of the same row do not import each other."""
    here = wing_of(module)
    others = {name for name in own_imports(module) if wing_of(name) != here}
    assert {name for name in others if LEVELS[wing_of(name)] > LEVELS[here]} == set()


@pytest.mark.parametrize("wing", LEVELS)
def test_there_is_no_circle_inside_a_wing(wing: str) -> None:
    """The modules of a wing have an order in which each imports from earlier ones only, also for types."""
    inside = {name: own_imports(name) for name in PATHS if wing_of(name) == wing}
    order = [*TopologicalSorter({name: found & inside.keys() for name, found in inside.items()}).static_order()]
    assert set(order) == inside.keys()


def test_every_kind_of_import_is_found() -> None:
    """Plain and relative imports, from parents, and in functions: an empty result means that there are none."""
    assert {"_log.event", "_log.position", "backends.base"} <= own_imports("backends.memory")
    assert {"_mount.app", "backends.base", "exceptions"} < own_imports("")
    assert Import("trio", in_function=True) in set(imports("_loop._trio"))
    assert Import("asyncio", in_function=False) in set(imports("_loop.timer"))


@pytest.mark.parametrize("module", PATHS)
def test_a_library_is_imported_only_where_it_belongs(module: str) -> None:
    """Starlette in the wings of HTTP, pydantic and trio in one place each, Redis in its backend."""
    tops = {one.target.partition(".")[0] for one in imports(module)}
    libraries = tops - set(sys.stdlib_module_names) - {"anyio", PACKAGE}
    assert {name for name in libraries if LIBRARIES.get(name, set()).isdisjoint({module, wing_of(module)})} == set()


@pytest.mark.parametrize("library", ["trio", "pydantic_core", "itsdangerous"])
def test_an_optional_library_is_imported_when_it_is_needed(library: str) -> None:
    """Inside functions only."""
    found = [one for module in PATHS for one in imports(module) if one.target.partition(".")[0] == library]
    assert found
    assert all(one.in_function for one in found)


# Public names


def public_names() -> set[str]:
    """Return the names that a user sees in the package, without submodules."""
    return {
        name for name, value in vars(sse_asgi).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }


def test_all_is_sorted_and_complete() -> None:
    """Every public name is in __all__ once, and no other name is."""
    assert sse_asgi.__all__ == sorted(public_names())


@pytest.mark.parametrize("name", sse_asgi.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    """Each public object, and each of its public methods and properties, has a docstring of its own."""
    value = getattr(sse_asgi, name)
    members = vars(value) if inspect.isclass(value) else {}
    documentable = {
        f"{name}.{key}": member.__doc__
        for key, member in members.items()
        if not key.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    }
    documentable[name] = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert [key for key, doc in documentable.items() if not inspect.cleandoc(doc or "")] == []


def test_the_version_is_that_of_the_distribution() -> None:
    """The package reads its version, and has no copy of it."""
    assert sse_asgi.__version__ == version("sse-asgi")


def test_another_attribute_is_an_attribute_error() -> None:
    """As in any other module."""
    with pytest.raises(AttributeError, match="module 'sse_asgi' has no attribute 'Broker'"):
        sse_asgi.Broker  # noqa: B018


def test_the_lowest_versions_are_tested() -> None:
    """scripts/versions installs the lowest versions that pyproject.toml allows."""
    root = TESTS.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    lowest = {re.sub(r"\[.*\]", "", name): version for name, version in (one.split(">=") for one in declared)}
    tested = (root / "requirements-lowest.txt").read_text().split("\n\n")[0]
    pins = dict(line.split("==") for line in tested.splitlines() if "==" in line)
    assert {name: version_of(pins[name]) for name in pins} == {name: version_of(lowest[name]) for name in lowest}


def version_of(text: str) -> tuple[int, ...]:
    """Return the numbers of a version; 0.46 is 0.46.0."""
    return tuple(int(part) for part in (text + ".0").split("."))[:3]


DOORS = {
    "backends.base": ["Backend", "Member", "Sink"],
    "backends.memory": ["MemoryBackend"],
    "backends.redis": ["RedisBackend"],
    "config": ["Settings", "create_hub"],
    "dialects": ["AG_UI", "AI_SDK", "ANTHROPIC", "Dialect", "OPENAI"],
    "decoder": ["DecodedEvent", "EventDecoder"],
    "encoder": ["encode"],
    "fastapi": [
        "EventName",
        "LastEventID",
        "assert_no_open_dependencies",
        "event_schema",
        "prepare",
    ],
    "exceptions": ["BackendError", "HubClosedError", "PublishUnknownError", "SSEError", "SlowReaderError"],
    "publisher": ["Publisher"],
    "telemetry": ["Telemetry", "context_of", "traced"],
    "testing": [
        "ClientFactory",
        "Clock",
        "Cookies",
        "EventStream",
        "EventStreamClient",
        "FaultyBackend",
        "LiveServer",
        "RedisServer",
        "SyncEventStream",
        "SyncEventStreamClient",
        "assert_clean",
    ],
    "testing.contract": ["BackendContract"],
    "testing.plugin": ["redis_server", "sse_client", "sse_server"],
    "tickets": ["ChannelSigner", "RedactTickets", "Ticket", "TicketError"],
}


@pytest.mark.parametrize("door", DOORS)
def test_a_public_name_is_in_its_public_place(door: str) -> None:
    """Users import these names from these modules. The code may stand elsewhere."""
    module = import_module(f"{PACKAGE}.{door}")
    assert [name for name in DOORS[door] if not hasattr(module, name)] == []


def test_the_table_of_public_places_is_complete() -> None:
    """It has every module without an underscore in its path, except the package and the folder of backends."""
    assert {name for name in PATHS if not re.search(r"(^|\.)_", name)} - {"", "backends"} == DOORS.keys()


@pytest.mark.parametrize("door", DOORS)
def test_a_public_name_is_one_object(door: str) -> None:
    """The package itself gives the same object as the module."""
    module = import_module(f"{PACKAGE}.{door}")
    shared = {*DOORS[door]} & {*sse_asgi.__all__}
    assert [name for name in shared if getattr(module, name) is not getattr(sse_asgi, name)] == []


# Logging


def loggers(module: str) -> list[str]:
    """Return the arguments of all calls of `getLogger`, as they are written."""
    calls = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    return [ast.unparse(one) for call in calls if ast.unparse(call.func).endswith("getLogger") for one in call.args]


@pytest.mark.parametrize("module", PATHS)
def test_a_module_logs_by_the_name_of_its_wing(module: str) -> None:
    """Operators can filter by wing. The command line shows the log of all wings."""
    wing = "backends.redis" if module.startswith("backends.redis") else wing_of(module)
    own = PACKAGE if module == "__main__" else f"{PACKAGE}.{wing.lstrip('_')}"
    assert set(loggers(module)) <= {repr(own)}


# Tests


def mirror_of(module: str) -> Path:
    """Return the file of a module's own tests; the underscores around names are dropped."""
    *folders, name = PATHS[module].relative_to(SOURCE).with_suffix("").parts
    return TESTS.joinpath(*(folder.strip("_") for folder in folders), f"test_{name.strip('_')}.py")


@pytest.mark.parametrize("module", [name for name in PATHS if functions_of(tree_of(name))])
def test_a_module_has_tests_of_its_own_name(module: str) -> None:
    """`scripts/mirror` proves that they cover it by themselves."""
    assert mirror_of(module).is_file()


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
    """Import the package in a new interpreter, and compare the process before and after."""
    run = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("part", ["signal handlers", "event loops", "threads", "logging handlers"])
def test_importing_changes_nothing(fresh: dict[str, bool], part: str) -> None:
    """Signal handlers, event loops, threads and logging handlers are the same before and after the import."""
    assert fresh[part]


@pytest.mark.parametrize(
    "name",
    ["fastapi", "uvicorn", "redis", "trio", "pydantic", "itsdangerous", "opentelemetry", "httpx", "logging.handlers"],
)
def test_importing_does_not_import(fresh: dict[str, list[str]], name: str) -> None:
    """A library that only some users need is not imported for all."""
    assert name not in fresh["modules"]


# Sizes


def docstring_lines(tree: ast.AST) -> set[int]:
    """Return the numbers of the lines of all docstrings."""
    nodes = [node.body[0] for node in ast.walk(tree) if isinstance(node, Documented) and ast.get_docstring(node)]
    return {line for node in nodes for line in range(node.lineno, (node.end_lineno or 0) + 1)}


def code_lines(source: str) -> set[int]:
    """Return the numbers of the lines that are neither blank nor only a comment."""
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {line for token in tokens if token.type not in blank for line in range(token.start[0], token.end[0] + 1)}


def body_lines(function: FunctionNode) -> int:
    """Count the lines of a function below its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("module", PATHS)
def test_no_function_is_long(module: str) -> None:
    """No function's body has more than 30 lines, without its docstring."""
    lines = {function.name: body_lines(function) for function in functions_of(tree_of(module))}
    assert {name: count for name, count in lines.items() if count > MAX_BODY_LINES} == {}


@pytest.mark.parametrize("module", PATHS)
def test_no_module_is_long(module: str) -> None:
    """No module has more than 300 lines, without docstrings, blank lines and comments."""
    source = PATHS[module].read_text()
    assert len(code_lines(source) - docstring_lines(ast.parse(source))) <= MAX_MODULE_LINES


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Name the attributes that a class gives to its objects: those in `__slots__`, and those that its methods set."""
    found: set[str] = set()
    for one in node.body:
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "__slots__":
            found |= {str(name.value) for name in ast.walk(one.value) if isinstance(name, ast.Constant)}
    for part in itertools.chain.from_iterable(ast.walk(function) for function in functions_of(node)):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self":
            found.add(part.attr)
    return found


@pytest.mark.parametrize("module", PATHS)
def test_no_class_has_many_attributes(module: str) -> None:
    """No class gives its objects more than 15 attributes, without those of its base classes."""
    classes = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.ClassDef)]
    counts = {node.name: len(attributes_of(node)) for node in classes}
    assert {name: count for name, count in counts.items() if count > MAX_ATTRIBUTES} == {}


def test_the_attributes_of_a_class_are_found() -> None:
    """In slots and in every method, each once; a field of the class itself is not one."""
    source = """
class One:
    __slots__ = ("a", "b")
    x: int

    def __init__(self):
        self.a = self.d = 1
        self.e: int = self.z

    def change(self):
        self.c, other.y = 3, 4
"""
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    assert attributes_of(node) == set("abcde")


@pytest.mark.parametrize("module", PATHS)
def test_options_have_names_and_types(module: str) -> None:
    """No function takes any option of any type; `Unpack` of a TypedDict names those that are passed on."""
    options = {function.name: function.args.kwarg for function in functions_of(tree_of(module))}
    annotations = {name: one.annotation for name, one in options.items() if one is not None}
    assert [name for name, one in annotations.items() if one is None or ast.unparse(one) in ("Any", "object")] == []


@pytest.mark.parametrize("module", PATHS)
def test_a_module_has_a_docstring(module: str) -> None:
    """Its first paragraph is a sentence, or a heading that the next lines explain."""
    first = (ast.get_docstring(tree_of(module)) or "").split("\n\n")[0]
    assert re.search(r"[.:]$", first)
