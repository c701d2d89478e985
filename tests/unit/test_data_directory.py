"""What a directory is to a logger, by what stands in it."""

from __future__ import annotations

import pytest

from dlog.core.data_directory import (
    CREATED,
    MARK,
    First,
    Found,
    Further,
    directories_in_use,
    first_directory,
    further_directory,
    why_not_created,
)
from dlog.errors import ConfigurationError

MINE, OTHER = "aa" * 16, "bb" * 16


@pytest.mark.parametrize(
    ("names", "mark", "known", "step", "words"),
    [
        ((CREATED, MARK), MINE, True, Further.USE, ""),
        ((MARK, "runs"), MINE, False, Further.USE, ""),
        ((CREATED,), "", False, Further.CLAIM, ""),
        ((CREATED,), "", True, Further.CLAIM, ""),
        ((), "", True, Further.AWAY, "is its disk mounted"),
        (("lost+found",), "", True, Further.AWAY, "it is empty"),
        ((CREATED, MARK), OTHER, True, Further.AWAY, OTHER),
        ((CREATED, MARK), OTHER, False, Further.REFUSE, OTHER),
        ((), "", False, Further.REFUSE, "it is empty"),
        (("photos",), "", False, Further.REFUSE, "it holds photos"),
    ],
)
def test_a_further_directory(
    names: tuple[str, ...], mark: str, known: bool, step: Further, words: str
) -> None:
    found, reason = further_directory(Found(names, mark), MINE, known=known)
    assert found is step
    assert words in reason
    assert bool(reason) is (step in (Further.AWAY, Further.REFUSE))


@pytest.mark.parametrize(
    ("names", "mark", "expected"),
    [
        ((CREATED,), "", First.BEGIN),
        ((CREATED, MARK, "journal"), MINE, First.GO_ON),
        (("journal",), "", First.GO_ON),
        ((CREATED, MARK, "runs"), MINE, First.JOURNAL_LOST),
        ((), "", First.NOT_CREATED),
        (("lost+found",), "", First.NOT_CREATED),
        (("runs",), "", First.NOT_CREATED),
    ],
)
def test_the_directory_of_the_journal(names: tuple[str, ...], mark: str, expected: First) -> None:
    assert first_directory(Found(names, mark)) is expected


KNOWN = ("/a", "/b", "/c")


@pytest.mark.parametrize(
    ("configured", "held", "live", "used"),
    [
        (("/a", "/b", "/c"), {1}, {7}, ("/a", "/b", "/c")),
        (("/a", "/b", "/c", "/d"), {1}, set(), ("/a", "/b", "/c", "/d")),
        (("/a",), set(), set(), ("/a",)),
        (("/a",), {1}, set(), ("/a", "/b")),
        (("/a",), set(), {7}, ("/a", "/b", "/c")),
        (("/moved", "/b"), {0, 2}, {7}, ("/moved", "/b", "/c")),
        (("/a", "/b", "/d"), {1}, set(), ("/a", "/b", "/d")),
    ],
)
def test_what_the_journal_needs_stays(
    configured: tuple[str, ...], held: set[int], live: set[int], used: tuple[str, ...]
) -> None:
    assert directories_in_use(configured, KNOWN, held=held, live=live) == used


@pytest.mark.parametrize(
    ("configured", "held", "live", "words"),
    [
        (("/a", "/c"), {1}, set(), "/b still holds files"),
        (("/a", "/b", "/d"), {2}, set(), "/c still holds files"),
        (("/a", "/b", "/d"), set(), {7}, "run 7 is active"),
        (("/a", "/b", "/c", "/d"), set(), {7, 9}, "run 7, 9 is active"),
    ],
)
def test_no_other_directory_takes_its_place(
    configured: tuple[str, ...], held: set[int], live: set[int], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        directories_in_use(configured, KNOWN, held=held, live=live)


@pytest.mark.parametrize("names", [(), ("lost+found",), (CREATED,)])
def test_what_is_empty_becomes_a_data_directory(names: tuple[str, ...]) -> None:
    assert why_not_created(Found(names)) == ""


@pytest.mark.parametrize(
    ("names", "mark", "words"),
    [
        ((CREATED, MARK), OTHER, OTHER),
        (("journal",), "", "of a logger already"),
        (("photos",), "", "it holds photos"),
        (tuple("abcdefg"), "", "it holds a, b, c, d, e, …"),
    ],
)
def test_what_holds_something_does_not(names: tuple[str, ...], mark: str, words: str) -> None:
    assert words in why_not_created(Found(names, mark))
