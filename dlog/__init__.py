"""dlog: the data logger that never loses an event it has acknowledged.

Two things are meant for import by users: `dlog.Source`, a Collector/Router's side of the event
link, and `dlog.read`, which iterates the events and blocks of event files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dlog.reader import read as read
    from dlog.source import Source as Source

# Imported when asked for: a reader of files needs no network library, and a command no numpy.
_WHERE: Final = {"Source": "dlog.source", "read": "dlog.reader"}

__all__ = ["Source", "read"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
