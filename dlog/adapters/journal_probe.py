"""The program of the child that reads a journal before its parent dares to; it changes nothing.

Run by its path, alone: it imports nothing of dlog, and little else, since every start waits for it.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lmdb

# What it exits with where the system gives too little to read the journal with.
UNABLE = 3
# And where it is kept out, for want of permission say; `recovery/journal_dump.py` exits with it.
SHUT = 4
GROUPS_MAX = 32
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


def read_journal(mode: str, path: str, prefixes: list[bytes]) -> None:
    """Says what it is about to do, line by line, so that the last line tells what killed it."""
    import lmdb

    writing = mode == "write"
    _say("opening it")
    # Room in the map for the page that is put below; the file stays as it is.
    map_size = os.stat(os.path.join(path, "data.mdb")).st_size + (4 << 20) if writing else 0
    try:
        os.chdir(path)  # LMDB takes no path that is not UTF-8
        env = lmdb.open(
            ".", map_size=map_size, readonly=not writing, lock=not writing, create=False
        )
        for prefix in prefixes:
            _say(f"reading the keys below {prefix!r}")
            with env.begin() as txn, txn.cursor() as cursor:
                found = cursor.set_range(prefix) if prefix else cursor.first()
                while found and cursor.key().startswith(prefix):
                    cursor.value()  # copied, hence every page of it is read
                    found = cursor.next()
        if writing:
            _say("reading the pages of the next commit")
            change = env.begin(write=True)
            change.put(b"\0", bytes(1 << 14))
            for end in _ends(change):
                change.put(end, b"")
            change.abort()
        env.close()
    except (lmdb.Error, OSError, MemoryError) as error:
        _say(str(error))
        code = error.errno if isinstance(error, OSError) else getattr(error, "code", errno.ENOMEM)
        raise SystemExit(UNABLE if code in EXHAUSTED else 1) from None
    _say("readable")


def _ends(txn: lmdb.Transaction) -> list[bytes]:
    """Keys behind the last of each group of keys (what they have before their first slash): where
    commits put most of theirs."""
    ends: list[bytes] = []
    with txn.cursor() as cursor:
        found = cursor.first()
        while found and len(ends) < GROUPS_MAX:
            ends.append(bytes(cursor.key()).split(b"/")[0] + b"/\xff")
            found = cursor.set_range(ends[-1])
    return ends


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Where lmdb is installed, "write" or "read", the journal, and prefixes in hexadecimal."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    packages, mode, path, *prefixes = arguments
    sys.path.append(packages)
    read_journal(mode, path, [bytes.fromhex(prefix) for prefix in prefixes])


if __name__ == "__main__":
    main(sys.argv[1:])
