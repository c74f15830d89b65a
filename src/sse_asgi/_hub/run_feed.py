"""RunFeed: the frames of a run, up to its last event."""

from .._log.names import END
from .delivery import Delivery
from .feed import SubscriptionFeed

# A line of data begins with another name, and no event of an application has this type. So only the last event of a run
# has this line, among the last bytes of a body.
END_LINE = f"\nevent: {END}\n".encode()
LONGEST = 256


class RunFeed(SubscriptionFeed):
    """Gives the frames of a run as those of any subscription, and ends after the event `sse.end`.

    The feed does not check each frame. It looks for the end in the last bytes of each body that leaves it.
    """

    __slots__ = ()

    def offer(self, delivery: Delivery) -> None:
        """Send or hold one live event; finish if it was the end and was sent."""
        SubscriptionFeed.offer(self, delivery)  # super() would look it up for each event
        if END_LINE in delivery.entry.frame[-LONGEST:] and self._gate.written is delivery.position:  # sent at once
            self._finish_after(delivery.entry.frame)

    def take(self) -> bytes:
        """Take the frames that wait."""
        return self._finish_after(super().take())

    def take_plain(self) -> bytes:
        """Take the frames that wait."""
        return self._finish_after(super().take_plain())

    def _finish_after(self, body: bytes) -> bytes:
        if END_LINE in body[-LONGEST:]:
            self._gate.finish()
            self._news.set()
        return body
