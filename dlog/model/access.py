"""`[logger] mode`: who may read and write what the logger makes. It touches no file."""

from __future__ import annotations

import re
from typing import Final

_MODE: Final = re.compile(r"0?6[046][046]")
MODE_FORM: Final = (
    'write the mode of a file, such as "0660" or "0640": 6 for the user, then for the group '
    "and for others 6 (reads and writes), 4 (reads) or 0; folders get x where files have r"
)


def parse_mode(text: str) -> int:
    """The permissions of a file that is open. Raises `ValueError`."""
    if not _MODE.fullmatch(text):
        raise ValueError(MODE_FORM)
    return int(text, 8)


def folder_mode(mode: int) -> int:
    """Of the folders that such files stand in: who may read them may enter."""
    return mode | (mode & 0o444) >> 2


def umask_of(mode: int) -> int:
    """With it, files come out with this mode, folders and sockets with that of folders."""
    return 0o777 & ~folder_mode(mode)
