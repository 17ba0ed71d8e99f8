"""Run commands with strace, which counts their system calls and makes the k-th one fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

#: All by which a file system can be changed.
CHANGING = (
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
    *("fsync", "fdatasync", "sync_file_range", "ftruncate", "truncate", "fallocate"),
    *("open", "openat", "creat", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")


@dataclass(frozen=True)
class Call:
    """A system call of a run: the ``number``-th of its ``name`` (from 1), as it was logged."""

    name: str
    number: int
    text: str


@dataclass(frozen=True)
class End:
    """How a run ended: exit code (negative: signal), all it printed, and whether a fault hit."""

    code: int
    messages: str
    injected: bool


class Tracer:
    """Runs commands of ``vnprep``, with or without a fault; to be closed after use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = Path(__file__).with_name("preloaded.py")
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Tracer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()

    def calls(self, arguments: list[object], out: Path) -> list[Call]:
        """Run a command undisturbed; return the calls of its main thread that change ``out``."""
        end = self._run(arguments, [])
        assert end.code == 0, end.messages
        counts: Counter[str] = Counter()
        found = []
        lines = [_LINE.match(line) for line in self._log().splitlines()]
        main = next(match[1] for match in lines if match)
        for match in lines:
            if match is None or match[1] != main:
                continue
            counts[match[2]] += 1
            creates = match[2] not in ("open", "openat") or "O_CREAT" in match[3]
            if creates and str(out) in match[3]:
                found.append(Call(match[2], counts[match[2]], match[3]))
        return found

    def fault(self, arguments: list[object], call: Call, what: str) -> End:
        """Run a command in which a call meets a fault, e.g. ``signal=SIGKILL``, ``error=EIO``."""
        return self._run(arguments, [f"inject={call.name}:{what}:when={call.number}"])

    def run(self, arguments: list[object]) -> End:
        """Run a command undisturbed."""
        return self._run(arguments, None)

    def _log(self) -> str:
        return (self.folder / "strace.log").read_text(encoding="utf-8", errors="replace")

    def _run(self, arguments: list[object], expressions: list[str] | None) -> End:
        messages = self.folder / "messages"
        request = {"arguments": [str(word) for word in arguments], "messages": str(messages)}
        pid = int(self._ask(json.dumps(request)))
        tracer = self._attach(pid, expressions) if expressions is not None else None
        code = int(self._ask("go"))
        if tracer is not None:
            tracer.communicate()
        injected = expressions is not None and ("INJECTED" in self._log() or code == -9)
        return End(code, messages.read_text(encoding="utf-8"), injected)

    def _ask(self, line: str) -> str:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(line + "\n")
        self.server.stdin.flush()
        return self.server.stdout.readline()

    def _attach(self, pid: int, expressions: list[str]) -> subprocess.Popen[str]:
        command = ["strace", "-f", "-y", "-p", str(pid), "-o", str(self.folder / "strace.log")]
        for expression in [f"trace=?{',?'.join(CHANGING)}", "signal=none", *expressions]:
            command += ["-e", expression]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr
        line = tracer.stderr.readline()
        if "attached" not in line:
            self._ask("go")
            raise CannotTrace(line.strip())
        return tracer


class CannotTrace(Exception):
    """strace is there but may not trace, as in some containers."""


def why_not() -> str | None:
    """Say why calls cannot be traced here, or return None."""
    with contextlib.suppress(OSError):
        result = subprocess.run(["strace", "-f", "true"], capture_output=True, text=True)
        return None if result.returncode == 0 else f"strace may not trace: {result.stderr[-80:]}"
    return "strace is not installed (on Debian and Ubuntu: apt install strace)"
