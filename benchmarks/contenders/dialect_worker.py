"""Streams dicts to a server that takes everything: `dialect_worker.py plain|dialect` prints ns for a line of input."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import instructions

COUNT = 300
STREAM = {"plain": instructions.stream_parts, "dialect": instructions.stream_in_dialect}[sys.argv[1]]

for _ in sys.stdin:
    began = time.process_time()
    STREAM(COUNT, instructions.part)
    print((time.process_time() - began) / COUNT / instructions.READERS * 1e9, flush=True)
