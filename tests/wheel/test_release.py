"""`scripts/release build`, the part of a release that needs no new environment for the package."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_release_is_built_and_checked(tmp_path: Path) -> None:
    """The sdist, and the wheel that is built from it, pass twine's checks."""
    done = subprocess.run(
        [ROOT / "scripts" / "release", "build"],
        env={**os.environ, "DIST": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {one.suffix for one in tmp_path.iterdir()} == {".gz", ".whl"}
    assert done.stdout.count("PASSED") == 2


def test_a_version_needs_a_changelog(tmp_path: Path) -> None:
    """The first section of CHANGELOG.md is that of the version in pyproject.toml."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "release", tmp_path / "scripts")
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    (tmp_path / "pyproject.toml").write_text('version = "99.0.0"\n')
    done = subprocess.run([tmp_path / "scripts" / "release"], capture_output=True, text=True, check=False)
    newest = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert (done.returncode, done.stdout) == (1, f"CHANGELOG.md begins with {newest[3:]}, and the version is 99.0.0\n")
