"""Which logger a command talks to, and how: `-d DATA`, `--to ADDRESS`, or `--listen ADDRESS`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from dlog.adapters.coor_link import CoorClient, CoorServer

DEFAULT_DATA = Path("data")

DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data", "-d", metavar="DATA",
        help="The data directory of a logger on this machine (default: data, if there is one).",
    ),
]  # fmt: skip
ToOption: TypeAlias = Annotated[
    str, typer.Option("--to", metavar="ADDRESS", help="Where a logger listens: tcp://HOST:PORT.")
]
ListenOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--listen", metavar="ADDRESS",
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
        with CoorServer(_address(listen, "--listen"), name=name) as server:
            yield server
        return
    if not data and not to:
        if not (DEFAULT_DATA / "logger.json").is_file():
            raise typer.BadParameter("which logger? -d DATA or --to ADDRESS")
        data = DEFAULT_DATA
    with CoorClient(data if data else _address(to, "--to"), name=name) as client:
        yield client


def _address(text: str, option: str) -> str:
    if not text.startswith(("tcp://", "ipc://")):
        raise typer.BadParameter(f"{option} {text}: an address is tcp://HOST:PORT or ipc://PATH")
    return text
