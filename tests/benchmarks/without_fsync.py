"""A logger that syncs nothing, to see what durability costs: `python -m … start -c dlog.toml`.

It exists for this comparison alone. dlog itself has no switch for it.
"""

from __future__ import annotations

import os
from typing import Any

import lmdb

from dlog.cli.__main__ import main


def _nothing(descriptor: int) -> None:
    pass


_open = lmdb.open


def _open_without_sync(*args: Any, **how: Any) -> lmdb.Environment:
    return _open(*args, **how, sync=False, metasync=False)


if __name__ == "__main__":
    os.fsync = os.fdatasync = _nothing  # type: ignore[assignment]
    lmdb.open = _open_without_sync  # type: ignore[assignment]
    main()
