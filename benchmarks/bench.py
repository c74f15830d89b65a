"""The benchmarks: `./scripts/bench [question ...] [--rounds n] [--quick]`.

Prints the tables as Markdown; unless it is quick, it also writes them into README.md, and the rounds behind them and
the plots into results/.
"""

import argparse
import importlib
import shlex
import signal
import sys

from suite.answer import Setting
from suite.contenders import BY_NAME
from suite.processes import prepare
from suite.report import save

QUESTIONS = ("fanout", "latency", "idle", "connects", "storm", "channels", "tokens", "encode", "slow", "growth")
QUESTIONS += ("redis", "compress", "profile", "instructions")


def main() -> None:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="question", help=f"some of: {', '.join(QUESTIONS)}")
    parser.add_argument("--rounds", type=int, help="how many rounds count (15, or 3 where it is quick)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that everything works")
    parser.add_argument("--only", default="", help=f"contenders, with commas between: {', '.join(BY_NAME)}")
    parser.add_argument("--points", default="", help="of fanout, with commas between: 1000 readers, bursts of 10, ...")
    parser.add_argument("--before", help="a commit whose library is to compete too")
    asked = parser.parse_args()
    unknown = {*asked.questions, *filter(None, asked.only.split(","))} - {*QUESTIONS, *BY_NAME}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    prepare()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the servers end too
    rounds = asked.rounds or (3 if asked.quick else 15)
    only, points = (tuple(filter(None, map(str.strip, text.split(",")))) for text in (asked.only, asked.points))
    command = shlex.join(["./scripts/bench", *sys.argv[1:]])
    setting = Setting(command, rounds, asked.quick, only, points, asked.before)
    for question in asked.questions or QUESTIONS:
        answer = importlib.import_module(f"questions.{question}").run(setting)
        print(f"\n{save(answer, setting)}\n", flush=True)


main()
