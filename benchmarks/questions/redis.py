"""Redis: the cost of receiving and publishing with RedisBackend and with redis-py, measured by redis_backend.py."""

from suite.answer import Answer, Setting
from suite.contenders import OUR_SOURCE
from suite.environments import BENCHMARKS, environment, python
from suite.environments import run as run_program

MOST_ROUNDS = 9  # a round takes long, because it waits until many readers are back


def run(setting: Setting) -> Answer:
    answer = Answer("redis", "Redis")
    command = (
        python("ours"),
        BENCHMARKS / "redis_backend.py",
        "--rounds",
        str(1 if setting.quick else min(setting.rounds, MOST_ROUNDS)),
    )
    printed = run_program(*command, env=environment(**OUR_SOURCE))
    answer.say(f"```text\n{printed.strip()}\n```")
    return answer
