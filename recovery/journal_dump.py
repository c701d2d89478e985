"""The child's side of `snapshot.read_journal`, a program:
`python -m dlog.recovery.journal_dump FOLDER PREFIX…` writes what the journal holds below each
prefix, in this order, to stdout.

It knows nothing of what keys and values mean, and imports little: whoever verifies a file waits for
it to start.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from dlog.adapters.journal import LmdbJournal
from dlog.adapters.journal_probe import SHUT, UNABLE
from dlog.errors import DlogError, JournalUnreadable, NotReadable, ResourcesExhausted


def dump_journal(folder: Path, prefixes: Sequence[bytes], out: IO[bytes]) -> None:
    """Key and value of each pair, each behind its length (4 bytes); two lengths of 0 at the end.
    Raises `JournalUnreadable`."""
    # Nothing is probed before: this process is the probe.
    journal = LmdbJournal.open_read_only(folder, live_prefixes=())
    try:
        for prefix in prefixes:
            last = b""
            for key, value in journal.scan(prefix):
                if key <= last:
                    raise JournalUnreadable("its keys are out of order: data.mdb is scrambled")
                last = key
                out.write(len(key).to_bytes(4, "little") + len(value).to_bytes(4, "little"))
                out.write(key)
                out.write(value)
        out.write(bytes(8))
        out.flush()
    finally:
        journal.close()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        dump_journal(Path(sys.argv[1]), [p.encode() for p in sys.argv[2:]], sys.stdout.buffer)
    except (ResourcesExhausted, MemoryError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(UNABLE)
    except NotReadable as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(SHUT)
    except DlogError as error:
        # The parent names the remedy itself.
        sys.exit(str(error).partition("; `dlog journal")[0])


if __name__ == "__main__":
    main()
