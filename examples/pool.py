"""A pool of workers: several processes that share a name, each of which serves one client at a time.

    python pool.py --listen         in four terminals, or as many as there are cores
    python pool.py 30000 40000      in another; each number is a task

The node gives each client to the worker that has waited longest, so tasks that come one after the other go round, and a
worker that is busy is passed over. When all are busy, clients wait. `--parallel` gives all tasks at once. Workers come and
go while the others work; a client that comes before all of them waits for the first.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from ouroboros.dev import FlowException, flow_accept, flow_alloc

NAME = "pool"


def solve(task: int) -> int:
    """How many primes there are below it."""
    return sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(2, task))


def worker() -> None:
    print(f"Worker {os.getpid()} is waiting; stop with Ctrl-C.", flush=True)
    while True:
        with flow_accept(name=NAME) as flow:
            try:
                flow.writeline(f"{solve(int(flow.readline()))}, says worker {os.getpid()}")
            except (FlowException, ValueError) as error:  # a client that left early, or whose task is no number
                print(f"On to the next client: {error}", flush=True)


def ask(task: int) -> str:
    with flow_alloc(NAME, wait=True) as flow:
        flow.writeline(str(task))
        return flow.readline()


def main() -> None:
    parser = argparse.ArgumentParser(description="Have a pool of workers count primes.")
    parser.add_argument("-l", "--listen", action="store_true", help="be a worker")
    parser.add_argument("-p", "--parallel", action="store_true", help="give all tasks at once")
    parser.add_argument("tasks", metavar="N", type=int, nargs="*", help="count the primes below it")
    options = parser.parse_args()
    try:
        if options.listen:
            worker()
        with ThreadPoolExecutor(len(options.tasks) or 1) as at_once:
            answers = at_once.map(ask, options.tasks) if options.parallel else map(ask, options.tasks)
            for task, answer in zip(options.tasks, answers, strict=True):
                print(f"below {task}: {answer}", flush=True)
    except KeyboardInterrupt:
        print("Stopped.")
    except FlowException as error:
        sys.exit(f"pool: {error}")


if __name__ == "__main__":
    main()
