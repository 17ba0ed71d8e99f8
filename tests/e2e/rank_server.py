"""Start ranks that need not import torch and DeepSpeed again: they are forked from here.

The imports take most of a small run's time. Each line on stdin is a JSON request, each line on
stdout its answer:

    {"start": [{"argv": […], "env": {…}, "stderr": path}, …]}   → process ids
    {"wait": [process id, …]}                                   → exit codes
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import warnings
from typing import Any

#: The answers' own way out: DeepSpeed logs to stdout while it is imported.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

#: DeepSpeed asks for the Muon optimizer whatever the optimizer is, torch's ask for its compiler.
IMPORTS = (
    "deepspeed.runtime.zero.muon.original_muon",
    "torch._dynamo",
    "matplotlib.figure",
    "peft",
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in IMPORTS:
        importlib.import_module(name)


def become_rank(argv: list[str], env: dict[str, str], stderr: str) -> None:
    """Run a script in this freshly forked process, and end with its exit code."""
    os.environ.clear()
    os.environ.update(env)
    errors = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nothing, 0), (nothing, 1), (errors, 2)):
        os.dup2(source, target)
    sys.argv = argv
    sys.path[0] = os.path.dirname(argv[0])  # noqa: PTH120  (what python itself puts there)
    runpy.run_path(argv[0], run_name="__main__")


def start(rank: dict[str, Any]) -> int:
    """Fork a rank; return its process id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        become_rank(**rank)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stderr.flush()
    os._exit(code)


def wait(process: int) -> int:
    """Wait for a rank; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main() -> None:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer = [start(rank) for rank in request["start"]]
        else:
            answer = [wait(process) for process in request["wait"]]
        print(json.dumps(answer), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main()
