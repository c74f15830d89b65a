"""A process that is no web server: publishes to the hub that the environment names, and prints what was stored.

outsider.py COUNT CHANNEL ...: so many events to each channel; then, when a line comes in, one event, "end", to all of
them at once.
"""

import asyncio
import sys

from sse_asgi import create_hub


async def main() -> None:
    count, channels = int(sys.argv[1]), sys.argv[2:]
    async with create_hub() as hub:
        for number in range(count):
            for channel in channels:
                data = f"outsider {number}"
                print(await hub.publish(channel, data), channel, data, sep="\t")
        print(flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(await hub.publish(channels, "end"))


asyncio.run(main())
