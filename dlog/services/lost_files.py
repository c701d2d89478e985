"""Open event files whose names were taken away: each is kept open until it has its name again.

It gives the names back and tells the operator. It decides nothing about the parts. (A filesystem
deletes a file once its last name is gone and its last descriptor is closed.)
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from dlog.errors import StorageError
from dlog.model.ids import FileKey
from dlog.ports import Alarms, Severity

log = logging.getLogger("dlog.lost")


class LostFile(Protocol):
    """An open file, as its part knows it."""

    @property
    def key(self) -> FileKey: ...

    @property
    def where(self) -> str:
        """Its final path, for people."""
        ...

    def lost(self) -> str:
        """Why its name does not lead to it, "" where it does. Raises `StorageError`."""
        ...

    def save(self, why: str) -> str:
        """Give it its name again; what was done, for people. Raises `StorageError`."""
        ...

    def close_file(self) -> None: ...


class LostFiles:
    """Used by any thread."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._lock = threading.Lock()  # for a save as a whole: there are few, and far between
        self._held: dict[FileKey, LostFile] = {}

    def hold(self, file: LostFile) -> None:
        """Keep it open. Call this before the seal: the housekeeper settles each sealed part."""
        self._held[file.key] = file

    def holds(self, key: FileKey) -> bool:
        return key in self._held

    def save_all(self) -> None:
        for key in list(self._held):
            self.save(key)

    def save(self, key: FileKey) -> None:
        """Give it its name again, then close it; where that fails, it stays open."""
        with self._lock:
            file = self._held.get(key)
            if file is None:
                return  # another thread did it meanwhile
            why = "lost its name"
            try:
                why = file.lost() or why
                done = file.save(why)
            except StorageError as error:
                self._tell(file, f"{why}; it is kept open until it can be saved: {error}")
                return
            file.close_file()
            del self._held[key]
            log.warning("%s: %s", file.where, done)
            self._tell(file, f"{why}; {done}, and nothing acknowledged is lost")

    def _tell(self, file: LostFile, what: str) -> None:
        self._alarms.raise_alarm(f"file-lost {file.key}", Severity.ERROR, f"{file.where} {what}")
