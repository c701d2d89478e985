"""`dlog start`: runs the logger in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[
        Path,
        typer.Option(
            "--config", "-c", metavar="FILE",
            help="The configuration. Data directories in it count from its own folder.",
        ),
    ] = Path("dlog.toml"),
    auto: Annotated[
        bool,
        typer.Option("--auto", help="Without a COOR: INIT and CONFIGURE come from the file."),
    ] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
) -> None:  # fmt: skip
    """Run the logger in the foreground, and go on with whatever was running.

    It ends by `dlog coor stop` (ends the runs first), or by SIGTERM and Ctrl-C (the runs stay
    active, and the next start resumes them).

    Exit codes: 0 done, 70 failure, 75 locked by another logger, 78 bad configuration.
    """
    from dlog.adapters.configuration_file import read_configuration

    configuration = read_configuration(config)
    from dlog.logger import run_logger

    data = Path(configuration.logger.data[0])
    raise typer.Exit(run_logger(configuration, data, auto=auto, log_json=log_json))
