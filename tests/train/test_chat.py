"""The chat as a user meets it: through a pipe, and in a terminal."""

from __future__ import annotations

import errno
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import generate as generate_script

ROOT = Path(__file__).parents[2]


def chat(run: Path, text: str | bytes, *options: str) -> Any:
    return CliRunner().invoke(generate_script.main, [str(run), "--chat", *options], input=text)


def test_a_pipe_gets_answers_and_nothing_else(taught: Any) -> None:
    result = chat(taught.run, "Mở rèm\n\n/reset\nTắt đèn bếp\n/quit\nMở rèm\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Đã mở rèm\nĐã tắt đèn bếp\n"
    assert result.stderr == "note: the conversation begins anew\n"


def test_commands_and_errors_do_not_end_the_chat(taught: Any) -> None:
    lines = ["/help", "/rest", "dài " * 300, "Mở rèm"]
    result = chat(taught.run, "\n".join(lines))
    assert result.exit_code == 0
    assert result.stdout == "Đã mở rèm\n"
    assert "/reset   forget" in result.stderr
    assert "no command /rest" in result.stderr
    assert "leaves no room" in result.stderr
    result = chat(taught.run, b"a\xff\nM\xe1\xbb\x9f r\xc3\xa8m\n")
    assert result.stdout == "Đã mở rèm\n"
    assert "not valid Unicode" in result.stderr


def test_forgetting_and_cutting_are_said(taught: Any) -> None:
    result = chat(taught.run, "Bật quạt phòng ngủ lên mức 2\n" * 12, "--max-new-tokens", "3")
    assert "cut after 3 tokens" in result.stderr
    assert "no longer fit" in result.stderr


def test_chat_is_refused_beside_other_sources_of_requests(taught: Any) -> None:
    for option in ("Mở rèm", "--json", "--continue"):
        assert chat(taught.run, "", option).exit_code == 2


class Terminal:
    """The script at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._shown = b""
        self._end, theirs = pty.openpty()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "train" / "generate.py"), *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            # What a shell starts in the background inherits that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, words: str, seconds: float = 90, *, interrupt: bool = False) -> None:
        """Read until words are shown that were not when this was last asked.

        With ``interrupt`` press Ctrl-C until then: Python misses one that comes between the
        prompt and the first wait for a key.
        """
        end = time.monotonic() + seconds
        while words.encode() not in self._shown:
            if interrupt:
                os.kill(self.process.pid, signal.SIGINT)
            assert time.monotonic() < end, self._shown.decode(errors="replace")
            if select.select([self._end], [], [], 1)[0]:
                try:
                    self._shown += os.read(self._end, 4096)
                except OSError as error:  # Linux says so when the other end has closed
                    assert error.errno == errno.EIO
                    raise AssertionError(self._shown.decode(errors="replace")) from None
        self._shown = self._shown.split(words.encode(), 1)[1]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


def test_a_terminal_can_interrupt_and_end(taught: Any) -> None:
    terminal = Terminal(str(taught.run), "--chat")
    try:
        terminal.wait_for("> ")
        terminal.type("Mở rèm\n")
        terminal.wait_for("Đã mở rèm")
        terminal.wait_for("> ")
        terminal.wait_for("/quit or Ctrl-D ends", interrupt=True)
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.close()
