"""The types of the page's client, checked by tsc."""

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "--types", "")


def test_a_page_that_uses_every_option_has_the_right_types() -> None:
    """Right options pass, and each wrong one is an error."""
    tsc = ("node", str(HERE / "node_modules" / ".bin" / "tsc"))
    result = subprocess.run([*tsc, *OPTIONS, "typed_page.ts"], cwd=HERE, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
