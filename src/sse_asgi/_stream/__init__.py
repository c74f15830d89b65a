"""One event stream as an ASGI response, from its first byte to its last.

`response.py` checks the options of a stream. `connection.py` runs it: its states, what may happen in each of them, and
what wakes its task stand at the head of that module. A connection has these parts, and each part has one job:

- `feeds.py` turns the content into frames. `content.py` runs a feed in a task of its own.
- `writer.py` is the only caller of `send`. `sender.py` sends without a task, `joining.py` joins events into one body.
- `upload.py` shares `receive()` between the content and the watcher of the client (`watching.py`).
- `deadlines.py` does what is due because time has passed. `ending.py` says the last words and cleans up.

`foreign.py` guards event streams that other libraries make, and `limits.py` counts the streams of both kinds.

These decisions hold for the whole wing:

- Bare futures, one timer and plain tasks stand in place of anyio's events and task groups on the path of each event and
  each connection. The primitives of anyio cost as much CPU as a delivery, and several KiB a connection. trio gets the
  same interfaces, built on anyio. There is no speed target on trio, and awaits in `finally` need a shield there.
- The content has a native task. anyio cancels by level, so that every await in a `finally` is cancelled again. A native
  task on asyncio gets one cancellation.
- `receive()` has one owner and is started once. One send is under way at a time.
- Event loops share nothing: their state is in a `LoopVar` or on their timer. No module has state.
- A limit is looked at twice, a tenth of a second apart, before a client or content is given up. A blocked event loop
  finds its timers due before it has read what arrived meanwhile.
"""
