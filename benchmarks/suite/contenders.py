"""The contenders: how each is started, and its abilities."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from .environments import CACHE, CONTENDERS, ROOT, nchan, node, python, source_of

SERVE = ("--loop", "uvloop", "--http", "httptools", "--backlog", "4096", "--log-level", "warning", "--no-access-log")
SERVE += ("--interface", "asgi3")  # `controlled` returns the application's coroutine


@dataclass(frozen=True)
class Contender:
    """One server.

    Attributes:
        name: The name on the command line and in results.
        title: The name in tables.
        command: The command line, given the port.
        environment: Its environment variables.
        tokens: Whether it can stream from a generator.
        resumes: Whether it replays the events that a reader has missed.
        posts: Whether events are posted to it one by one; the others make them.
        redis: Whether it needs a redis-server.
        behind: What HAProxy speaks to it, for the load client; None if the load client speaks to it directly.
    """

    name: str
    title: str
    command: Callable[[int], list[str | Path]]
    environment: dict[str, str] = field(default_factory=dict)
    tokens: bool = True
    resumes: bool = False
    posts: bool = False
    redis: bool = False
    behind: str | None = None


def served(interpreter: str | Path, module: str, port: int) -> list[str | Path]:
    """Return the command that serves one of the ASGI applications with uvicorn."""
    return [interpreter, "-m", "uvicorn", f"{module}:app", "--app-dir", CONTENDERS, "--port", str(port), *SERVE]


def uvicorn(env: str, module: str) -> Callable[[int], list[str | Path]]:
    return lambda port: served(python(env), module, port)


def script(env: str, module: str) -> Callable[[int], list[str | Path]]:
    return lambda port: [python(env), CONTENDERS / f"{module}.py", str(port)]


def nginx(port: int) -> list[str | Path]:
    home = CACHE / "nchan"
    home.mkdir(exist_ok=True)
    config = home / "nginx.conf"
    config.write_text(nchan().read_text().replace("PORT", str(port)))
    return ["nginx", "-p", home, "-c", config]


def hypercorn(module: str) -> Callable[[int], list[str | Path]]:
    options = ("-k", "uvloop", "--backlog", "4096", "--log-level", "warning")
    return lambda port: [
        *(python("servers"), "-m", "hypercorn", f"asgi:{CONTENDERS / module}:app"),
        *("--bind", f"127.0.0.1:{port}", *options),
    ]


def granian(module: str) -> Callable[[int], list[str | Path]]:
    options = ("--interface", "asgi", "--loop", "uvloop", "--backlog", "4096", "--no-access-log")
    options += ("--log-level", "warning", "--working-dir", str(CONTENDERS))
    return lambda port: [python("servers"), "-m", "granian", f"{module}:app", "--port", str(port), *options]


OUR_SOURCE = {"PYTHONPATH": str(ROOT / "src")}
ALL = (
    Contender("raw", "raw ASGI app, hand-written", uvicorn("ours", "raw")),
    Contender("streaming", "Starlette's StreamingResponse", uvicorn("ours", "streaming")),
    Contender("ours", "sse_asgi", uvicorn("ours", "ours"), OUR_SOURCE, resumes=True),
    Contender("ours_mounted", "sse_asgi in Starlette", uvicorn("ours", "ours_mounted"), OUR_SOURCE, resumes=True),
    Contender("ours_fastapi", "sse_asgi in FastAPI", uvicorn("fastapi", "ours_fastapi"), OUR_SOURCE, resumes=True),
    Contender("ours_redis", "sse_asgi on Redis", uvicorn("ours", "ours"), OUR_SOURCE, resumes=True, redis=True),
    Contender(
        "sse_starlette",
        "sse-starlette, as in its examples",
        uvicorn("sse_starlette", "sse_starlette_example"),
        {"LOOKS": "1"},
    ),
    Contender(
        "sse_starlette_plain",
        "sse-starlette without is_disconnected()",
        uvicorn("sse_starlette", "sse_starlette_example"),
    ),
    Contender("fastapi", "fastapi.sse", uvicorn("fastapi", "fastapi_sse")),
    Contender("litestar", "Litestar channels", uvicorn("litestar", "litestar_channels")),
    Contender("aiohttp", "aiohttp-sse", script("aiohttp", "aiohttp_sse_server")),
    Contender("better_sse", "better-sse (Node)", lambda port: ["node", node(), str(port)]),
    Contender("nchan", "nchan (nginx module, C)", nginx, tokens=False, resumes=True, posts=True),
    Contender("floor", "asyncio Protocol, bare write()", script("ours", "floor"), tokens=False),
)
BY_NAME = {one.name: one for one in ALL}


def before(revision: str, one: Contender) -> Contender:
    """Return a contender with this library at another commit."""
    source = {**one.environment, "PYTHONPATH": str(source_of(revision))}
    return replace(one, name=f"{one.name} before", title=f"{one.title} at {revision}", environment=source)
