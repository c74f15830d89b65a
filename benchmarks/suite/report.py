"""Output of an answer: to the screen, README.md and results/."""

import json
import platform
import re
from functools import cache
from pathlib import Path

from .answer import Answer, Setting
from .environments import BENCHMARKS, CACHE, ROOT, nchan, run, versions
from .plots import plot

README = BENCHMARKS / "README.md"
SHOWN = ("uvicorn", "uvloop", "httptools", "starlette", "anyio", "redis", "hiredis")


@cache
def conditions() -> dict[str, str]:
    """Return the versions of everything that was measured."""
    found = {name: version for name, version in versions("ours").items() if name in SHOWN}
    for env, names in (
        ("sse_starlette", ("sse-starlette",)),
        ("fastapi", ("fastapi", "pydantic")),
        ("litestar", ("litestar",)),
        ("aiohttp", ("aiohttp", "aiohttp-sse")),
        ("servers", ("granian", "Hypercorn", "zttp")),
    ):
        found |= {name: version for name, version in versions(env).items() if name in names}
    package = json.loads((BENCHMARKS / "contenders" / "better_sse" / "package.json").read_text())
    found["better-sse"] = package["dependencies"]["better-sse"]
    found["Node"] = run("node", "--version").strip().removeprefix("v")
    nchan()  # installs the package
    found["nchan"] = run("dpkg-query", "--showformat=${Version}", "--show", "libnginx-mod-nchan")
    found["HAProxy"] = re.findall(r"version (\S+?)-", run("haproxy", "-v"))[0]
    found["Redis"] = re.findall(r"v=(\S+)", run("redis-server", "--version"))[0]
    commit = run("git", "log", "-1", "--format=%h", "--", "src", cwd=ROOT).strip()
    changed = "-dirty" if run("git", "status", "--porcelain", "src", cwd=ROOT) else ""
    return {"sse_asgi": commit + changed, "Python": platform.python_version(), **dict(sorted(found.items()))}


def save(answer: Answer, setting: Setting) -> str:
    """Save the tables, rounds and plots, or save them in .cache/quick after a quick run; return the tables."""
    counted = [f"{len(rounds.rounds)} rounds" for rounds in answer.rounds.values()][:1]
    told = ", ".join([f"`{setting.command}`", *counted, f"sse_asgi {conditions()['sse_asgi']}"])
    tables = f"{answer.markdown}\n\n{told}."
    results = CACHE / "quick" if setting.quick else BENCHMARKS / "results"
    results.mkdir(parents=True, exist_ok=True)
    plotted = plot(answer, results / f"{answer.question}.png")
    kept = {"command": setting.command, "versions": conditions(), "points": _numbers(answer)}
    (results / f"{answer.question}.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")
    if not setting.quick:
        picture = f"\n\n![{answer.title}](results/{answer.question}.png)" if plotted else ""
        _into_readme(answer.question, tables + picture)
        _into_readme("versions", ", ".join(f"{name} {version}" for name, version in conditions().items()) + ".")
    return tables


def _numbers(answer: Answer) -> dict[str, list[dict[str, dict[str, float]]]]:
    return {
        point: [
            {name: {metric: float(f"{value:.4g}") for metric, value in values.items()} for name, values in one.items()}
            for one in rounds.rounds
        ]
        for point, rounds in answer.rounds.items()
    }


def _into_readme(name: str, text: str) -> None:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page = Path(README).read_text()
    if begin not in page:
        page += f"\n{begin}\n{end}\n"
    head, _, rest = page.partition(begin)
    README.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
