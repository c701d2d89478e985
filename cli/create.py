"""`dlog create`: makes data directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlog.cli.output import words


def command(
    data: Annotated[
        list[Path] | None, typer.Argument(metavar="[DATA]...", help="The new data directories.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE",
            help="Make the data directories that this configuration names.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Make new data directories, for a new logger or for one that gets a further disk.

    Each one is a path that does not exist yet, or an empty directory, for example the root of a new
    disk. `dlog start` makes no data directory, because a disk that is not mounted looks like a new
    one.
    """
    if (config is None) != bool(data):
        raise typer.BadParameter("give data directories, or a configuration with -c")
    mode = group = ""
    if config is not None:
        from dlog.adapters.configuration_file import read_configuration

        logger = read_configuration(config).logger
        data, mode, group = [Path(path) for path in logger.data], logger.mode, logger.group
    from dlog.creation import create_data_directory, link_to_runs

    for path in data or []:
        new = create_data_directory(path, mode=mode, group=group)
        if problem := link_to_runs(path):
            words(f"warning: {problem}")
        words(f"created {path}" if new else f"{path} was created before, and is not used yet")
