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
    create: Annotated[
        bool,
        typer.Option(
            "--create",
            help="Make the data directories of the configuration first if the first one is not "
            "there or empty. For scripts: a disk that is not mounted then looks like a new one.",
        ),
    ] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
) -> None:  # fmt: skip
    """Run the logger in the foreground, and go on with whatever was running.

    Its data directories must be there: `dlog create` makes them.

    It ends by `dlog coor stop` (ends the runs first), or by SIGTERM, Ctrl-C or a closed
    terminal (the runs stay active, and the next start resumes them; nohup keeps it running).
    """
    from dlog.adapters.configuration_file import data_of_broken, read_configuration
    from dlog.errors import ConfigurationError

    try:
        configuration = read_configuration(config)
    except ConfigurationError as error:
        data = data_of_broken(config)
        if data is None:
            error.add_note("`dlog resume -d DATA` goes on with live runs without a configuration")
            raise
        from dlog.logger import run_logger

        raise typer.Exit(run_logger(None, data, log_json=log_json, refused=error)) from error
    from dlog.logger import run_logger

    paths = [Path(path) for path in configuration.logger.data]
    if create:
        from dlog.creation import create_where_none_is

        logger = configuration.logger
        create_where_none_is(paths, mode=logger.mode, group=logger.group)
    raise typer.Exit(run_logger(configuration, paths[0], auto=auto, log_json=log_json))
