"""`make fuzz`: Hypothesis always, atheris where it is installed; both for a bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import need_package
from tests.fuzz.verify_target import Target
from tests.rig.commands import CHECKOUT

SECONDS = int(os.environ.get("DLOG_FUZZ_SECONDS", "120"))

CHANGE = st.builds(
    lambda what, where, piece: (
        bytes([what]) + where.to_bytes(4, "little") + len(piece).to_bytes(2, "little") + piece
    ),
    st.integers(0, 255), st.integers(0, 40_000), st.binary(max_size=63),
)  # fmt: skip
CHANGES = st.lists(CHANGE, max_size=6).map(lambda changes: b"\0" + b"".join(changes))
INPUTS = st.one_of(CHANGES, st.binary(max_size=9000).map(lambda content: b"\xff" + content))


def fuzz_once(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        Target(Path(name)).one(data)


# Inputs that were found to be handled wrongly once are kept here.
@given(data=INPUTS)
@example(data=b"\0")
@example(data=b"\xff")
@example(data=b"\x00\x01a\x00\x00\x00\x01\x00\x01")  # a header that begins behind its blocks
@settings(max_examples=100)
def test_no_input_breaks_verify_or_salvage(data: bytes) -> None:
    fuzz_once(data)


@pytest.mark.fuzz
@given(data=INPUTS)
def test_no_input_breaks_verify_or_salvage_in_a_long_search(data: bytes) -> None:
    fuzz_once(data)


@pytest.mark.fuzz
def test_atheris_finds_nothing(tmp_path: Path) -> None:
    """Guided by coverage; memory bounded by the target, time by DLOG_FUZZ_SECONDS."""
    need_package("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.fuzz", f"-max_total_time={SECONDS}",
            "-timeout=10", "-max_len=9000", "-rss_limit_mb=4096",
            f"-artifact_prefix={tmp_path}/", str(corpus),
        ],
        cwd=CHECKOUT, capture_output=True, timeout=SECONDS + 120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
