"""Guards against a change that makes the library much slower: ratios with wide margins, from the benchmarks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script: str, *arguments: str) -> str:
    """Run a script of the benchmarks, and return its output."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    env = {**os.environ, "PYTHONHASHSEED": "0"}  # the order of sets changes the count by some percent
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=180, env=env).stdout


def instructions(name: str) -> float:
    return float(run("instructions.py", name).rpartition(": ")[2].replace(",", ""))


def allocated(stack: str) -> float:
    return float(run("allocations.py", stack).rpartition(": ")[2].replace(",", ""))


def test_fan_out_costs_little_more_than_a_hand_written_app() -> None:
    """A delivery takes less than 1.6 times the CPU of a raw ASGI app, measured in alternating rounds."""
    assert float(run("smoke.py")) < 1.6


@pytest.mark.parametrize(
    ("name", "floor", "limit"),
    [
        ("delivery", "delivery, raw ASGI", 2.2),
        ("publish to one reader", "publish to one reader, raw ASGI", 3.2),
        ("event", "event, as a plain f-string", 13),
        ("connect, in Starlette", "connect, StreamingResponse in Starlette", 1.5),
    ],
)
def test_instructions_are_bounded(name: str, floor: str, limit: float) -> None:
    """Each takes a bounded multiple of the instructions of the plainest code for it."""
    assert instructions(name) < limit * instructions(floor)


@pytest.mark.parametrize(
    ("stack", "floor", "limit"),
    [("bare", "raw ASGI", 2.6), ("in Starlette", "bare", 1.5), ("in FastAPI", "bare", 1.8)],
)
def test_the_memory_of_an_idle_stream_is_bounded(stack: str, floor: str, limit: float) -> None:
    """What waits between the middleware and a stream is freed: it would more than double an idle stream's bytes."""
    assert allocated(stack) < limit * allocated(floor)
