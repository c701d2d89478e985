"""The command `dlog`: finds the command's module, runs it, and turns its end into an exit code.

A module is imported when its command is called: `dlog status` must not wait for numpy.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
from typing import Annotated, Any, Final, NamedTuple

import typer

from dlog.cli.exit_codes import OF_COMMAND, exit_codes_of
from dlog.cli.groups import Group
from dlog.cli.interrupts import INTERRUPTED, tell_interrupt
from dlog.cli.output import problem
from dlog.cli.standard_streams import (
    drop_what_no_stream_takes,
    open_what_is_closed,
    outlasting_its_reader,
    reader_went_away,
    show_what_cannot_be_encoded,
    stdout_fails,
)
from dlog.errors import DlogError


class Entry(NamedTuple):
    """A command: its module holds `command` (a function) or `app` (a group of commands)."""

    module: str
    help: str
    panel: str


LOGGER: Final = "The logger"
DATA: Final = "Data"
SAFETY: Final = "Checking and repair"
ROOM: Final = "Control room"
TRY: Final = "Try it"

COMMANDS: Final = {
    "create": Entry("dlog.cli.create", "Make a data directory.", LOGGER),
    "start": Entry("dlog.cli.start", "Run the logger; go on with what was running.", LOGGER),
    "resume": Entry("dlog.cli.resume", "Run the logger from its journal alone.", LOGGER),
    "status": Entry("dlog.cli.status", "States, runs, streams, connections, disk, alarms.", LOGGER),
    "alarms": Entry("dlog.cli.alarms", "The alarms that stand; acknowledge one.", LOGGER),
    "coor": Entry("dlog.cli.coor", "COOR's commands from a shell.", LOGGER),
    "send": Entry("dlog.cli.send", "Replay a recording into a run, as a Collector/Router.", DATA),
    "ls": Entry("dlog.cli.ls", "The catalogue: runs and their files.", DATA),
    "info": Entry("dlog.cli.info", "A file's header and totals.", DATA),
    "cat": Entry("dlog.cli.cat", "Events of files, or of a whole run.", DATA),
    "verify": Entry("dlog.cli.verify", "Check files, also while they are written.", SAFETY),
    "recover": Entry("dlog.cli.recover", "Rebuild damaged or partly written files.", SAFETY),
    "journal": Entry("dlog.cli.journal", "Check the journal, or rebuild it from files.", SAFETY),
    "faults": Entry("dlog.cli.faults", "Test runs with injected faults, and their report.", SAFETY),
    "alarm-server": Entry("dlog.cli.alarm_server", "Receive the alarms of several loggers.", ROOM),
    "monitor": Entry("dlog.cli.monitor", "Receive the state of several loggers.", ROOM),
    "demo": Entry("dlog.cli.demo", "The whole story: runs, a kill -9, the resume, the proof.", TRY),
    "bench": Entry("dlog.cli.bench", "What this machine can hold.", TRY),
}

# They print until nobody reads on. All others do their work to its end, whoever reads what they
# say, since their exit code tells of it.
STREAMS: Final = frozenset({"status", "alarm-server", "monitor", "cat"})

_WRITE_FAILS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class Commands(Group):
    """The group of all commands, each loaded when it is called; the help needs their names only."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, entry in COMMANDS.items() if _is_there(entry.module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None or not _is_there(entry.module):
            return None
        if cmd_name not in STREAMS:
            ctx.with_resource(outlasting_its_reader())
        module = importlib.import_module(entry.module)
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(
                add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
            )
            app.command(cmd_name)(module.command)
        found = typer.main.get_command(app)
        found.name = cmd_name
        _tell_exit_codes(cmd_name, found)
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        width = max(map(len, names))  # the same in each section
        for panel in dict.fromkeys(COMMANDS[name].panel for name in names):
            with formatter.section(panel):
                rows = [(n, COMMANDS[n].help) for n in names if COMMANDS[n].panel == panel]
                formatter.write_dl([(f"{name:<{width}}", text) for name, text in rows])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DlogError as error:
            problem("\n".join([str(error), *getattr(error, "__notes__", [])]))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            tell_interrupt(str(interrupt) or "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read the stream has what he wanted.
            reader_went_away()
            raise typer.Exit(0) from None
        except PermissionError as error:
            problem(f"{error.filename}: {error.strerror}")
            raise typer.Exit(1) from error


def _tell_exit_codes(words: str, command: Any) -> None:
    """Below the help of the command, or of each command of a group."""
    for name, each in getattr(command, "commands", {}).items():
        _tell_exit_codes(f"{words} {name}", each)
    if words in OF_COMMAND:
        lines = [f"  {code:<4} {what}" for code, what in exit_codes_of(words).items()]
        command.epilog = "\n".join(["\b", "Exit codes:", *lines])


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"dlog {version('dlog-daq')}")
        raise typer.Exit


@app.callback()
def _dlog(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
) -> None:
    """A data logger for physics experiments: every acknowledged event stands on disk, exactly
    once."""


def _say_what_failed(error: OSError) -> None:
    """A file that cannot be used is no bug of ours; without a file, it was what we print to."""
    if error.filename is None and error.errno not in _WRITE_FAILS:
        raise error
    problem(f"{error.filename or 'standard output'}: {error.strerror}")


def run() -> None:
    """The command line of this process; ends by `SystemExit`."""
    open_what_is_closed()
    show_what_cannot_be_encoded()
    try:
        app(prog_name="dlog")
    except OSError as error:
        _say_what_failed(error)
        raise SystemExit(1) from error
    except SystemExit as end:
        why = stdout_fails()
        if not why or end.code:
            raise
        problem(f"standard output: {why}")
        raise SystemExit(1) from None
    finally:
        drop_what_no_stream_takes()
