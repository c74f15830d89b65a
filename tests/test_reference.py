"""docs/reference: every public name is there with all of its options, and so is every reserved name."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import sse_asgi
from modules import PATHS, tree_of
from sse_asgi._log.last_event_id import CLIENTS_PARAMETERS, PARAMETER
from sse_asgi._log.run import FOLLOWERS, PREFIX
from sse_asgi._mount.query import PADDING_PARAMETERS
from test_package import DOORS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
NAMES = (FOLDER / "names.md").read_text()
DIRECTIVES = re.findall(
    r"^::: (\S+)$", "\n".join(path.read_text() for path in sorted(FOLDER.glob("*.md"))), re.MULTILINE
)
PUBLIC = {f"sse_asgi.{name}": getattr(sse_asgi, name) for name in sse_asgi.__all__} | {
    f"sse_asgi.{door}.{name}": getattr(import_module(f"sse_asgi.{door}"), name)
    for door, names in DOORS.items()
    for name in names
    if name not in sse_asgi.__all__
}
# The words by which a description says what a number counts.
UNITS = re.compile(
    r"seconds?|milliseconds|bytes?|events|channels|runs|streams|moment|most|status|See [A-Z]?\w+", re.IGNORECASE
)


# Public names


def test_every_public_name_is_in_the_reference() -> None:
    """Once, by the name from which users import it, as `::: sse_asgi.Hub`."""
    assert PUBLIC.keys() - {*DIRECTIVES} == set()
    assert sorted(DIRECTIVES) == sorted(PUBLIC)


def functions_of(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Return the constructor and the public methods of a public name, or the function that it is."""
    value = PUBLIC[name]
    if inspect.isfunction(value):
        yield name, value
    for key in dir(value) if inspect.isclass(value) else ():
        member = inspect.getattr_static(value, key)
        function = getattr(member, "__func__", member)
        ours = inspect.isfunction(function) and function.__module__.startswith("sse_asgi")
        if ours and (key == "__init__" or not key.startswith("_")):
            yield f"{name}.{key}", function


def described(name: str, section: str = "Args") -> dict[str, str]:
    """Return the description of each argument, or attribute, that a docstring has."""
    text = re.search(rf"^{section}:\n((?:(?:    .*)?\n)*)", f"{name}\n", re.MULTILINE)
    found = re.findall(r"^    \**(\w+): (.*(?:\n {5,}.*)*)", text[1], re.MULTILINE) if text else []
    return dict(found)


def options_of(name: str) -> Iterator[tuple[str, str | None, str]]:
    """Return the keyword-only parameters of a public name, their descriptions and types.

    A class without `Args` describes its options as attributes, and an implementation leaves them to its base.
    """
    value = PUBLIC[name]
    for path, function in functions_of(name):
        key = path.rpartition(".")[2]
        docs = [inspect.getdoc(function) or "", *(_doc(base, key) for base in getattr(value, "__mro__", ())[1:])]
        texts = described(inspect.getdoc(value) or "", "Attributes") if key == "__init__" else {}
        for doc in reversed(docs):
            texts |= described(doc)
        for one in inspect.signature(function).parameters.values():
            if one.kind is one.KEYWORD_ONLY:
                yield f"{path}({one.name}=)", texts.get(one.name), str(one.annotation)


def _doc(base: type, key: str) -> str:
    return inspect.cleandoc(getattr(vars(base).get(key), "__doc__", None) or "")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_option_is_described(name: str) -> None:
    """The reference shows its type and its default; its docstring says what it does, and what a number counts."""
    options = [*options_of(name)]
    assert [option for option, text, _ in options if text is None] == []
    numbers = [(option, text) for option, text, kind in options if re.search(r"\b(int|float)\b", kind)]
    assert [option for option, text in numbers if not UNITS.search(text or "")] == []


def test_options_are_found() -> None:
    """Of a constructor, of a method, and of a dataclass that describes them as attributes."""
    found = {option: (text or "")[:9] for option, text, _ in options_of("sse_asgi.Hub")}
    assert found["sse_asgi.Hub.__init__(ping_interval=)"] == "Seconds o"
    assert found["sse_asgi.Hub.publish(retry=)"] == "The brows"
    settings = {option: text for option, text, _ in options_of("sse_asgi.Settings")}
    assert (settings["sse_asgi.Settings.__init__(hub_name=)"] or "").startswith("`SSE_HUB_NAME`")


# Reserved names


def rows(section: str) -> set[str]:
    """Return the names in the first column of the tables of a section."""
    text = NAMES.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall("`([^`]+)`", row)}


def constants() -> Iterator[str]:
    """Return every text in the source, except docstrings and the names of metrics."""
    for module in PATHS:
        if module == "telemetry":
            continue
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                yield node.value


def test_every_reserved_event_and_channel_is_listed() -> None:
    """Each text of the source that is a name with the prefix."""
    used = {text for text in constants() if re.fullmatch(r"sse\.[a-z]+", text)}
    assert used | {PREFIX, FOLLOWERS} == rows("Events")


def test_every_parameter_is_listed() -> None:
    """Each that the source reads from a query."""
    source = "".join(path.read_text() for path in PATHS.values())
    read = set(re.findall(r'(?:query_params\.getlist\(|_first\(request, )"(\w+)"', source))
    assert read | {*PADDING_PARAMETERS, *CLIENTS_PARAMETERS, PARAMETER} == rows("Queries")


def test_every_other_variable_is_listed() -> None:
    """Each that the source reads from the environment, besides the settings."""
    source = "".join(path.read_text() for path in PATHS.values())
    assert set(re.findall(r'environ\.get\("(\w+)"', source)) == rows("Environment")


def test_every_name_with_the_packages_prefix_is_listed() -> None:
    """Keys of scopes, a salt and a group, but not loggers and modules."""
    used = {text for text in constants() if re.fullmatch(r"sse_asgi\.[a-z_]+", text)}
    loggers = {f"sse_asgi.{name.partition('.')[0].lstrip('_')}" for name in PATHS} - {"sse_asgi.backends"}
    fields = {text for text in constants() if re.fullmatch(r"sse_[a-z]+", text)} - {"sse_asgi"}
    assert (used - loggers) | fields | {"hub"} == rows("In Python")
