"""Instructions: what callgrind counts of an event, a delivery and a request; instructions.py counts them."""

from suite.answer import Answer, Setting
from suite.contenders import OUR_SOURCE
from suite.environments import BENCHMARKS, environment, python
from suite.environments import run as run_program


def run(setting: Setting) -> Answer:
    answer = Answer("instructions", "Instructions")
    printed = run_program(python("ours"), BENCHMARKS / "instructions.py", env=environment(**OUR_SOURCE))
    answer.say("Counted by callgrind, without a server; the requests are no event streams:")
    answer.table(("what", "instructions"), (line.split(": ") for line in printed.splitlines()))
    return answer
