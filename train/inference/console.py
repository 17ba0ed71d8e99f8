"""A chat in the terminal, or through a pipe: a request a line, answers on stdout."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

import click

from inference.conversation import Conversation
from vnprep.errors import InputError, TrainingError

_HELP = """\
/reset   forget the conversation so far
/quit    end; Ctrl-D does, too
/help    show this
Ctrl-C ends an answer. A request that begins with / is written with a second one: //…"""


def chat(conversation: Conversation) -> None:
    """Answer requests until /quit or the end of the input.

    The answers go to stdout as they are made, all else to stderr.
    """
    terminal = sys.stdin.isatty()
    if terminal:
        click.echo("/help says what can be done; /quit or Ctrl-D ends", err=True)
    for line in _lines(terminal):
        command = line.strip()
        if command == "/quit":
            return
        if not command:
            continue
        if command == "/help":
            click.echo(_HELP, err=True)
        elif command == "/reset":
            conversation.reset()
            click.echo("note: the conversation begins anew", err=True)
        elif command.startswith("/") and not command.startswith("//"):
            click.echo(f"note: no command {command.split()[0]}; /help lists them", err=True)
        else:
            _answer(conversation, command.removeprefix("/"))


def _lines(terminal: bool) -> Iterator[str]:
    if not terminal:
        # Bytes that are no UTF-8 are kept as they are, for the request to be refused by name.
        yield from io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="surrogateescape")
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives ``input`` its line editing and history)
    while True:
        try:
            yield input("> ")
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo("\n(/quit or Ctrl-D ends)", err=True)


def _answer(conversation: Conversation, request: str) -> None:
    try:
        turn = conversation.prepare(request)
    except (InputError, TrainingError) as error:
        click.echo(f"error: {error}", err=True)
        return
    if conversation.forgotten:
        count = conversation.forgotten
        click.echo(
            f"note: the {'oldest turn' if count == 1 else f'{count} oldest turns'} no longer "
            "fit and were forgotten",
            err=True,
        )
    interrupted = False
    # Closed at once: the conversation notes how far the answer came.
    with contextlib.closing(conversation.answer(turn)) as pieces:
        try:
            for piece in pieces:
                click.echo(piece, nl=False)
                sys.stdout.flush()
        except KeyboardInterrupt:
            interrupted = True
    click.echo()
    if conversation.last is not None and not conversation.last.stopped:
        why = "stopped" if interrupted else f"cut after {len(conversation.last.token_ids)} tokens"
        click.echo(f"note: {why}", err=True)
