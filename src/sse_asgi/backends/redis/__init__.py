"""Hubs that share a log in Redis: the one package that imports redis; `pip install 'sse-asgi[redis]'`.

From the bottom: `_resp` (bytes to replies), `_keys`, `_message` (the wire form of an event), `_link` (one connection),
`_url`, `_places`, `_endpoint` and `_address` (URLs, DNS, credentials, TLS, Sentinel), `_scripts` and the Lua files,
`_inbox` (messages in their order), `_dial` (a connection to a server that can carry a hub), `_cursor` (how far streams
were read), `_history` (pages, and losses), `_pages` (one reading of a page for all readers that want it), `_session`
(two connections, one life), `_current` (the stages of the current session), `_outage` (log lines), `_keeper` (session
after session), `_presence`, `_submitter` (publishing), `_backend` (the public class).

- **A session is the unit of failure.** A lost connection, a late answer, another epoch, a demoted master, a moved slot:
  each of them ends the session, and the next session is the only way to recover. It connects twice, fences, subscribes,
  reads the mark, catches up to the mark, and releases the messages that were held meanwhile.
- **A mark is read on the pub/sub connection itself,** in RESP3: `HMGET` of the epoch and the last sequence. Its answer
  comes after every event up to it. So it says where a new channel begins, it moves the position of a quiet process, and
  it proves that the connection is alive and at the right node. There is no probe channel and no wait for confirmations.
- **The payload is the frame.** One process writes it, and the others send the same bytes to their browsers. Its fields
  are read only when a transform asks for them.
- **The sequence is the server's clock,** and at least the last sequence plus 1: a server that lost its last writes does
  not give their sequences to other events. The fence finds out whether writes were lost (`fence.lua`).
- **Every entry names its channel's previous sequence,** so that a loss is known exactly, without reading the entries
  that are gone. An event of several channels names the previous sequence of each of them: an event that one channel has
  lost is not a gap where another channel still has it.
- **A page is merged on the server.** `page.lua` reads on in the stream that was read least far, within bounds for one
  call. The position after a page carries how far each stream was read, so that an event is sent once, and a replay of
  many channels costs as much as its channels cost one by one. A stream that was read too early rests, and only the
  sequence of its next entry is kept.
- **Joins and leaves have streams and an index of their own,** numbered in the one sequence, so that they push no events
  out.
- **Bytes are counted in the entries.** Each entry has the total of its channel's bytes up to it, so that the oldest
  entry says how much the stream holds. The sum over all channels, and the order of their last events, say which streams
  are deleted beyond `total_bytes`. The index still knows the last sequence of a channel whose stream was deleted.
- **redis-py names the server, this package opens the socket,** by public attributes of redis-py's connection objects.
  redis-py itself reads one reply at a time, and its PubSub subscribes again without a word of the lost messages.
"""

from ._backend import RedisBackend

__all__ = ["RedisBackend"]
