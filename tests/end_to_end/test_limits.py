"""A logger that its system gives too little to: words and the exit code of the documents."""

from __future__ import annotations

import pytest

from tests.rig.processes import QUICK_INIT, NewLogger

CASES = [
    (["prlimit", "--nofile=18:18"], "needs 32 descriptors"),
    (["prlimit", "--nofile=26:26"], "needs 32 descriptors"),
    (["prlimit", f"--as={300 << 20}"], "`ulimit -v`"),
    (["prlimit", f"--as={400 << 20}"], "`ulimit -v`"),
]


@pytest.mark.long
@pytest.mark.parametrize(("limited", "words"), CASES)
def test_too_little_for_the_sockets_ends_a_start_with_words(
    new_logger: NewLogger, limited: list[str], words: str
) -> None:
    logger = new_logger(QUICK_INIT)
    process = logger.spawn(prefix=limited)
    assert process.wait(60) == 1  # and no signal: libzmq would abort
    assert words in logger.log_file.read_text()
