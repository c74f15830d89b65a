"""The benchmarks: `./scripts/bench [question ...] [--rounds n] [--quick]`.

The command prints the tables as Markdown. Without `--quick` it also writes them into README.md, and writes the rounds
and the plots into results/.
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
QUESTIONS += ("servers", "workers", "publishes", "dialects", "runs", "yields", "redis", "compress", "profile", "steps")
QUESTIONS += ("instructions",)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="question", help=f"some of: {', '.join(QUESTIONS)}")
    parser.add_argument("--rounds", type=int, help="the number of rounds that count (15, or 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="use small numbers, to check that everything works")
    parser.add_argument("--only", default="", help=f"contenders, separated by commas: {', '.join(BY_NAME)}")
    parser.add_argument("--points", default="", help="points of fanout, separated by commas: 1000 readers, ...")
    parser.add_argument("--before", help="a commit whose library also competes, in each of ours")
    asked = parser.parse_args()
    unknown = {*asked.questions, *filter(None, asked.only.split(","))} - {*QUESTIONS, *BY_NAME}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    prepare()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # the servers end too
    rounds = asked.rounds or (3 if asked.quick else 15)
    only, points = (tuple(filter(None, map(str.strip, text.split(",")))) for text in (asked.only, asked.points))
    command = shlex.join(["./scripts/bench", *sys.argv[1:]])
    setting = Setting(command, rounds, asked.quick, only, points, asked.before)
    for question in asked.questions or QUESTIONS:
        answer = importlib.import_module(f"questions.{question}").run(setting)
        print(f"\n{save(answer, setting)}\n", flush=True)


main()
