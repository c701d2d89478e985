"""The space watch: how much is free on each data directory, and whether that is too little.

It only looks, once in a while, and remembers; what follows from it is the commander's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from dlog.errors import StorageError
from dlog.model.config import InitConfig
from dlog.model.status import DiskStatus
from dlog.ports import Clock, Directory

log = logging.getLogger("dlog.space")

INTERVAL_NS: Final = 1_000_000_000


class SpaceWatch:
    """Below its low-water mark a disk is low, until it is above the mark to resume at."""

    def __init__(self, directories: Sequence[Directory], clock: Clock) -> None:
        self._directories = directories
        self._clock = clock
        self._next_ns = 0
        self._told: dict[str, str] = {}  # by directory, why it could not be looked at
        self.disks = [DiskStatus(path=directory.name) for directory in directories]

    @property
    def low(self) -> list[DiskStatus]:
        """The disks that are low."""
        return [disk for disk in self.disks if disk.low]

    def look(self, init: InitConfig | None) -> bool:
        """Look again where it is time to; whether it was. Raises `DataDirectoryGone`."""
        if self._clock.monotonic_ns() < self._next_ns:
            return False
        self._next_ns = self._clock.monotonic_ns() + INTERVAL_NS
        low_water = init.low_water_bytes if init is not None else 0
        resume = init.resume_bytes if init is not None else 0
        looked = []
        for before, directory in zip(self.disks, self._directories, strict=True):
            try:
                space = directory.space()
            except StorageError as error:
                # A failing disk is told of by who writes to it; the other disks go on.
                if self._told.get(directory.name) != str(error):
                    log.warning("%s", error)
                self._told[directory.name] = str(error)
                looked.append(before)
                continue
            self._told.pop(directory.name, None)
            looked.append(
                DiskStatus(
                    path=directory.name,
                    free_bytes=space.free,
                    total_bytes=space.total,
                    low_water_bytes=low_water,
                    low=space.free < (resume if before.low else low_water),
                )
            )
        self.disks = looked
        return True
