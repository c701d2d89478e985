"""Coverage-guided fuzzing of verify and salvage:

python -m tests.fuzz -max_total_time=60 [CORPUS]
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import atheris

MEMORY_BYTES_MAX = 4 << 30


def main() -> None:
    with atheris.instrument_imports(include=["dlog"]):
        from tests.fuzz.verify_target import Target
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    with tempfile.TemporaryDirectory() as name:
        target = Target(Path(name))
        atheris.Setup(sys.argv, target.one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
