"""Instructions: callgrind's counts for an event, a delivery and a request, made by instructions.py."""

from suite.answer import Answer, Setting
from suite.contenders import OUR_SOURCE
from suite.environments import BENCHMARKS, environment, python
from suite.environments import run as run_program


def run(setting: Setting) -> Answer:
    answer = Answer("instructions", "Instructions")
    printed = run_program(python("ours"), BENCHMARKS / "instructions.py", env=environment(**OUR_SOURCE))
    answer.say("Counted by callgrind, without a server. The requests are not event streams:")
    answer.table(("work", "instructions"), (line.split(": ") for line in printed.splitlines()))
    return answer
