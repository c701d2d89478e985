"""`dlog resume`: runs the logger from its journal alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[
        Path,
        typer.Option("--data", "-d", metavar="DATA", readable=False, help="The data directory."),
    ],
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
) -> None:
    """Go on with the runs that were active, without the configuration file."""
    from dlog.logger import run_logger

    raise typer.Exit(run_logger(None, data, auto=False, log_json=log_json))
