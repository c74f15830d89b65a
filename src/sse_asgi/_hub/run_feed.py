"""RunFeed: the frames of a run, up to its last event."""

from .._log.names import END
from .delivery import Delivery
from .feed import SubscriptionFeed

# A line of data begins with another name, and no event of an application has this type. So only the last event of a run
# has this line.
END_LINE = f"\nevent: {END}\n".encode()


class RunFeed(SubscriptionFeed):
    """Gives the frames of a run as those of any subscription, and ends after the event `sse.end`.

    The feed looks for the end in each body that leaves it. Nothing follows the end, because later events of the channel
    are those of another run with the same key.
    """

    __slots__ = ()

    def offer(self, delivery: Delivery) -> None:
        """Send or hold one live event; finish if it was the end and was sent."""
        super().offer(delivery)
        if END_LINE in delivery.entry.frame and self._gate.written is delivery.position:  # it was sent at once
            self._finish_after(delivery.entry.frame)

    def take(self) -> bytes:
        """Take the frames that wait."""
        return self._finish_after(super().take())

    def take_plain(self) -> bytes:
        """Take the frames that wait."""
        return self._finish_after(super().take_plain())

    def _finish_after(self, body: bytes) -> bytes:
        end = (b"\n" + body).find(END_LINE)
        if end < 0:
            return body
        self._gate.finish()
        self._news.set()
        return body[: body.index(b"\n\n", end) + 2]
