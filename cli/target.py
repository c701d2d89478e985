"""Which logger a command talks to, and how: `-d DATA`, `--to ADDRESS`, or `--listen ADDRESS`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

if TYPE_CHECKING:
    from dlog.adapters.coor_link import CoorClient, CoorServer

DEFAULT_DATA = Path("data")
# A logger that is started at the same time is waited for; it may take a moment on a busy machine.
GONE_SECONDS: Final = 5.0

DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data", "-d", metavar="DATA", readable=False,
        help="The data directory of a logger on this machine (default: data, if there is one).",
    ),
]  # fmt: skip


def _not_empty(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """An empty address that is given is an unset variable, perhaps, and not another logger."""
    source = context.get_parameter_source(str(parameter.name))
    if not value and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("an empty address")
    return value


ToOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--to", metavar="ADDRESS", callback=_not_empty,
        help="Where a logger listens: tcp://HOST:PORT.",
    ),
]  # fmt: skip
ListenOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--listen", metavar="ADDRESS", callback=_not_empty,
        help="Act as the COOR that the logger connects to: wait for it there.",
    ),
]  # fmt: skip


@contextmanager
def reached(
    data: Path | None, to: str, listen: str = "", *, name: str = "dlog"
) -> Iterator[CoorClient | CoorServer]:
    """A COOR that talks to the logger that the options mean."""
    from dlog.adapters.coor_link import CoorClient, CoorServer

    if sum(bool(given) for given in (data, to, listen)) > 1:
        raise typer.BadParameter("give one of --data, --to and --listen")
    if listen:
        with CoorServer(checked_address(listen, "--listen", bound=True), name=name) as server:
            yield server
        return
    if not data and not to:
        if not DEFAULT_DATA.is_dir():
            raise typer.BadParameter("which logger? -d DATA or --to ADDRESS")
        data = DEFAULT_DATA
    target = data if data else checked_address(to, "--to", bound=False)
    with CoorClient(target, name=name, gone_seconds=GONE_SECONDS) as client:
        yield client


def checked_address(text: str, option: str, *, bound: bool) -> str:
    """The address. Raises `BadParameter`, which names the option and what is wrong."""
    from dlog.model.address import address_problem

    if problem := address_problem(text, bound=bound):
        raise typer.BadParameter(f"{option}: {problem}")
    return text
