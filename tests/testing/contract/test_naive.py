"""The judge of histories, on backends that are right and on one that is not."""

import pytest

from sse_asgi import MemoryBackend
from sse_asgi._log.event import History
from sse_asgi.testing.contract._naive import NaiveLog

pytestmark = pytest.mark.anyio


class Forgetful(MemoryBackend):
    """A backend whose history never says that something is missing."""

    async def history(self, *arguments: object) -> History:
        return (await super().history(*arguments))._replace(reason=None)  # type: ignore[arg-type]


async def test_a_right_history_is_accepted() -> None:
    """Whatever is dropped is told."""
    for seed in range(20):
        await NaiveLog(MemoryBackend(history_size=1 + seed % 4), seed).run()


async def test_a_history_that_hides_a_loss_is_found() -> None:
    """With the channels and the position in the message."""
    with pytest.raises(AssertionError):
        for seed in range(20):
            await NaiveLog(Forgetful(history_size=1), seed).run()
