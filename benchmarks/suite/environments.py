"""The environments of the contenders, kept in .cache: virtual environments, node_modules, the load client."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent
CONTENDERS = BENCHMARKS / "contenders"
ROOT = BENCHMARKS.parent
CACHE = BENCHMARKS / ".cache"
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def run(*command: str | Path, **options: object) -> str:
    """Run a program and return its output; if it fails, show the output and stop."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stdout}{result.stderr}")
    return str(result.stdout)


def python(name: str) -> Path:
    """Return the interpreter of the environment with the packages of requirements/<name>.txt."""
    home = CACHE / name
    wanted = "".join((CONTENDERS / "requirements" / f"{file}.txt").read_text() for file in ("uvicorn", name))
    stamp = home / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {name} ...", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        run(sys.executable, "-m", "venv", home)
        pip = (home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, "--requirement", CONTENDERS / "requirements" / f"{name}.txt")
        stamp.write_text(wanted)
    return home / "bin" / "python"


def versions(name: str) -> dict[str, str]:
    """Return the versions of the packages in an environment."""
    listed = run(python(name), "-m", "pip", "list", "--format=json", "--disable-pip-version-check")
    return {one["name"]: one["version"] for one in json.loads(listed)}


def node() -> Path:
    """Return the server of better-sse, with its packages installed."""
    home = CACHE / "better_sse"
    shutil.copytree(CONTENDERS / "better_sse", home, dirs_exist_ok=True)
    if not (home / "node_modules").exists():
        print("Installing better-sse ...", file=sys.stderr)
        run("npm", "ci", "--no-audit", "--no-fund", cwd=home)
    return home / "server.mjs"


def nchan() -> Path:
    """Return the configuration of nginx with nchan."""
    if not NCHAN.exists():
        print("Installing nchan ...", file=sys.stderr)
        run(ROOT / "scripts" / "debian", "libnginx-mod-nchan")
    return CONTENDERS / "nchan" / "nginx.conf"


def load_client() -> Path:
    """Return the load client, compiled."""
    source, program = BENCHMARKS / "load" / "load.c", CACHE / "load"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        run("gcc", "-O2", "-Wall", "-Wextra", "-o", program, source)
    return program


def source_of(revision: str) -> Path:
    """Return the src/ of another commit."""
    commit = run("git", "rev-parse", "--verify", f"{revision}^{{commit}}", cwd=ROOT).strip()
    home = CACHE / "src" / commit
    if not home.exists():
        home.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", home], input=archive, check=True)
    return home / "src"


def environment(**more: str) -> dict[str, str]:
    """Return the variables for a contender, without any that would change how Python or the library runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SSE_", "COV"))}
    return {**kept, **more}
