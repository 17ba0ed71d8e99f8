"""A program that runs ``vnprep`` commands in forks of itself, so that importing costs once.

It reads one JSON line for each: ``{"arguments": […], "messages": FILE}``; it answers with the
process id of a fork that waits, so that a tracer can be attached; a line ``go`` lets the fork run,
and the answer is its exit status (negative: the signal that ended it).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

# All that a command imports on its way, so that a fork makes no calls for it.
import vnprep.cli
import vnprep.cli.console
import vnprep.run.prepare

_PR_SET_PTRACER = 0x59616D61


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            _be_the_command(request["arguments"], request["messages"], reader)
        os.close(reader)
        print(child, flush=True)
        assert sys.stdin.readline() == "go\n"
        os.write(writer, b"g")
        os.close(writer)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _be_the_command(arguments: list[str], messages: str, go: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_long(-1), 0, 0, 0)
    file = os.open(messages, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.read(go, 1)
    sys.argv = ["vnprep", *arguments]
    code = 0
    try:
        vnprep.cli.main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
