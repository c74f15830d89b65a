"""The modules of the package, for tests: their names, files and syntax trees."""

import ast
from pathlib import Path

import sse_asgi

PACKAGE = "sse_asgi"
SOURCE = Path(sse_asgi.__file__).parent
TESTS = Path(__file__).parent

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    """Return the name by which a file is imported, relative to the package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def tree_of(module: str) -> ast.Module:
    return ast.parse(PATHS[module].read_text())


def functions_of(tree: ast.AST) -> list[FunctionNode]:
    return [node for node in ast.walk(tree) if isinstance(node, FunctionNode)]


def wing_of(module: str) -> str:
    """Return the name of the folder, or of the module at the top, that a module belongs to."""
    return module.partition(".")[0]
