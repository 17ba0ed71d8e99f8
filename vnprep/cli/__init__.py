"""The command line: ``vnprep``.

Data goes to stdout, progress and errors to stderr. Exit codes: 0 done; 1 the data or files are
at fault; 2 the command is; 130 interrupted, 143 terminated (``vnprep.interrupts``); 141 nobody
reads the output any more. Modules of
this package import click alone at the top, so that ``--help`` answers at once; a command imports
what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from vnprep import __version__
from vnprep.cli.export import export_command
from vnprep.cli.inspect import inspect_command
from vnprep.cli.pack import pack_command
from vnprep.cli.prepare import finetune_pairs, pretrain_text, pretrain_tsv
from vnprep.cli.tokenizer import tokenizer_group
from vnprep.cli.verify import verify_command
from vnprep.errors import VnprepError

_STDOUT = 1
_EXIT_BROKEN_PIPE = 141  # as a shell reports SIGPIPE: 128 + 13


class _NobodyReads(Exception):
    """The reader of our output (head, less) went away."""


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> object:
        """Run a command; click and rich would turn a broken pipe into exit code 1."""
        try:
            return super().invoke(context)
        except BrokenPipeError:
            raise _NobodyReads from None
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):
                raise _NobodyReads from None
            raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="vnprep")
def cli() -> None:
    """From Vietnamese text and request/response pairs to a model that answers.

    \b
    The way, in order:
      vnprep tokenizer train data/*.tsv --vocab-size 4000 --out tokenizer.json
      vnprep pretrain-tsv data/pretrain.tsv --tokenizer tokenizer.json --out pre/
      vnprep finetune-pairs pairs.tsv --tokenizer tokenizer.json --out ft/
      vnprep inspect ft/ --sample 3
      vnprep pack pre/ --seq-len 2048
      vnprep verify ft/
    then train/pretrain.py, train/finetune.py and train/generate.py.
    """


for _command in (
    tokenizer_group,
    pretrain_tsv,
    pretrain_text,
    finetune_pairs,
    inspect_command,
    pack_command,
    verify_command,
    export_command,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit."""
    try:
        cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except VnprepError as error:
        _fail(str(error))
    except (BrokenPipeError, _NobodyReads):
        _end_quietly()
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "check space and permissions, then run the same command again: it goes on"
        _fail(f"{place}{error.strerror or error}\n  remedy: {remedy}")
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; run the same command again to finish", err=True)
        sys.exit(130)


def _end_quietly() -> NoReturn:
    """End as other programs do whose output nobody reads: there is nothing left to say."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    sys.exit(_EXIT_BROKEN_PIPE)


def _fail(message: str) -> NoReturn:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(message, err=True)
    sys.exit(1)
