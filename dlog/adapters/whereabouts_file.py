"""DATA/logger.json, by which command lines and sources on this machine find the logger. A disk that
does not take it keeps nothing from going on: it is written once the disk does."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from dlog.adapters.logger_address import LOGGER_FILE
from dlog.model.status import Whereabouts

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 0.5


class WhereaboutsFile:
    """Written by the main thread alone; what could not be written is kept until `try_again`."""

    def __init__(self, data: Path) -> None:
        self._path = data / LOGGER_FILE
        self._unwritten: Whereabouts | None = None
        self._due = 0.0

    def read(self) -> Whereabouts:
        """What the last start wrote; empty where it did not, or the disk lost it."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Whereabouts)
        except (OSError, msgspec.MsgspecError, ValueError):
            return Whereabouts()

    def write(self, whereabouts: Whereabouts) -> None:
        """Whole or not at all; not synced, since the next start writes it anew."""
        if self._written(whereabouts):
            self._unwritten = None
            return
        self._unwritten = whereabouts
        self._due = time.monotonic() + _AGAIN_SECONDS

    def try_again(self) -> None:
        """What could not be written, now and then; else nothing."""
        if self._unwritten is not None and time.monotonic() >= self._due:
            self.write(self._unwritten)
            if self._unwritten is None:
                log.info("%s: written at last", self._path)

    def _written(self, whereabouts: Whereabouts) -> bool:
        fresh = self._path.with_suffix(".json.new")
        try:
            fresh.write_text(json.dumps(msgspec.to_builtins(whereabouts), indent=2) + "\n")
            os.replace(fresh, self._path)
        except OSError as error:
            if self._unwritten is None:  # not again at every attempt
                log.error("%s: %s; nobody finds this logger by it until it is written", self._path,
                          error)  # fmt: skip
            return False
        return True
