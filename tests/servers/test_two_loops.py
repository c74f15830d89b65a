"""Several event loops in one process share nothing."""

import json
import subprocess
import sys

import pytest

from servers.processes import ENVIRONMENT, HERE

SECONDS = 4


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_two_servers_in_threads_do_not_disturb_each_other(loop: str) -> None:
    """Both serve, notice each client that leaves, and stop."""
    command = [sys.executable, "two_loops.py", loop, str(SECONDS)]
    run = subprocess.run(command, cwd=HERE, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert run.stderr == ""
    found = json.loads(run.stdout)
    assert all(found["opened"])
    assert found["left"] == [0, 0]
