"""A small fan-out with this interpreter and its packages: prints the CPU of sse_asgi as a multiple of raw ASGI's."""

import contextlib
import sys
from functools import partial

from questions.fanout import Point, turn
from suite.contenders import OUR_SOURCE, Contender, served
from suite.duel import duel
from suite.environments import CACHE
from suite.processes import Server, prepare

POINT = Point("smoke", 300, 100, 1, 10)
ROUNDS = 15

CACHE.mkdir(exist_ok=True)
prepare()
with contextlib.ExitStack() as stack:
    contenders = [Contender(name, name, partial(served, sys.executable, name), OUR_SOURCE) for name in ("raw", "ours")]
    servers = [Server(contender, stack) for contender in contenders]
    for server in servers:
        server.load.open(POINT.readers)
    rounds = duel("smoke", ROUNDS, {server.name: turn(server, POINT) for server in servers})
print(f"{rounds.ratio('ours', 'raw', 'us').middle:.2f}")
