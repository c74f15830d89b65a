"""The test kit: clients that read streams in process, a clock to move, and a check that nothing is left.

`sse_asgi.testing.plugin` has fixtures for pytest. Nothing else here imports pytest.
"""

from ._clean import assert_clean
from ._client import EventStreamClient
from ._clock import Clock
from ._cookies import Cookies
from ._stream import EventStream
from ._sync import SyncEventStream, SyncEventStreamClient

__all__ = [
    "Clock",
    "Cookies",
    "EventStream",
    "EventStreamClient",
    "SyncEventStream",
    "SyncEventStreamClient",
    "assert_clean",
]
