"""What every journal promises, LMDB's and the simulated one alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlog.errors import InvariantBroken
from dlog.limits import JOURNAL_VALUE_BYTES_MAX
from dlog.ports import Change, Journal

if TYPE_CHECKING:
    from conftest import Journals


def test_committed_changes_are_read_back(journal: Journal) -> None:
    journal.commit([(b"a", b"1"), (b"b", b"")])
    assert journal.get(b"a") == b"1"
    assert journal.get(b"b") == b""
    assert journal.get(b"c") is None


def test_committed_changes_are_there_after_reopening(journals: Journals) -> None:
    journal = journals.create()
    journal.commit([(b"run/1", b"ACTIVE"), (b"run/2", b"ACTIVE")])
    journal.commit([(b"run/2", None)])
    journal = journals.open_again(journal)
    assert list(journal.scan(b"")) == [(b"run/1", b"ACTIVE")]


def test_changes_of_one_commit_are_applied_in_order(journal: Journal) -> None:
    journal.commit([(b"a", b"1"), (b"a", None), (b"b", None), (b"b", b"2"), (b"b", b"3")])
    assert list(journal.scan(b"")) == [(b"b", b"3")]


def test_deleting_what_is_not_there_changes_nothing(journal: Journal) -> None:
    journal.commit([(b"a", None)])
    assert list(journal.scan(b"")) == []


def test_an_empty_commit_changes_nothing(journal: Journal) -> None:
    journal.commit([])
    assert list(journal.scan(b"")) == []


def test_scan_gives_the_prefix_alone_in_key_order(journal: Journal) -> None:
    keys = [b"f/2", b"f/10", b"f/", b"f0", b"e\xff", b"f/\xff\xff", b"g"]
    journal.commit([(key, key) for key in keys])
    below = sorted(key for key in keys if key.startswith(b"f/"))
    assert [key for key, _ in journal.scan(b"f/")] == below
    assert [key for key, _ in journal.scan(b"")] == sorted(keys)
    assert list(journal.scan(b"nothing")) == []


def test_scan_is_complete_beyond_one_chunk(journal: Journal) -> None:
    pairs = [(b"k%06d" % n, b"%d" % n) for n in range(40_000)]
    journal.commit(pairs)
    assert list(journal.scan(b"k")) == pairs


def test_a_scan_left_unfinished_does_not_keep_commits_out(journal: Journal) -> None:
    journal.commit([(b"a%d" % n, b"x") for n in range(10)])
    scan = journal.scan(b"a")
    assert next(scan) == (b"a0", b"x")
    journal.commit([(b"a9", None)])
    assert journal.get(b"a9") is None


def test_the_longest_key_and_the_largest_value_are_kept(journal: Journal) -> None:
    key, value = b"k" * 511, bytes(range(256)) * (JOURNAL_VALUE_BYTES_MAX // 256)
    journal.commit([(key, value)])
    assert journal.get(key) == value
    assert list(journal.scan(key)) == [(key, value)]


@pytest.mark.parametrize(
    "change", [(b"", b"x"), (b"k" * 512, b"x"), (b"k", bytes(JOURNAL_VALUE_BYTES_MAX + 1))]
)
def test_a_change_beyond_the_limits_is_refused_with_its_whole_group(
    journal: Journal, change: Change
) -> None:
    with pytest.raises(InvariantBroken):
        journal.commit([(b"good", b"1"), change])
    assert journal.get(b"good") is None
    journal.commit([(b"good", b"2")])
    assert journal.get(b"good") == b"2"


def test_it_says_what_it_takes_on_its_disk(journal: Journal) -> None:
    before = journal.size_bytes()
    journal.commit([(b"a%d" % n, bytes(1_000_000)) for n in range(8)])
    assert journal.size_bytes() > before


def test_a_closed_journal_is_not_used(journal: Journal) -> None:
    journal.close()
    with pytest.raises(InvariantBroken):
        journal.commit([(b"a", b"1")])
    with pytest.raises(InvariantBroken):
        journal.get(b"a")
    journal.close()


_CHANGES = st.lists(
    st.tuples(st.binary(min_size=1, max_size=3), st.one_of(st.none(), st.binary(max_size=5000))),
    max_size=8,
)


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(groups=st.lists(_CHANGES, max_size=8))
def test_it_behaves_as_an_ordered_map(journals: Journals, groups: list[list[Change]]) -> None:
    journal = _only_journal(journals)
    journal.commit([(key, None) for key, _ in list(journal.scan(b""))])
    model: dict[bytes, bytes] = {}
    for group in groups:
        journal.commit(group)
        for key, value in group:
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        assert list(journal.scan(b"")) == sorted(model.items())


_JOURNALS: dict[int, Journal] = {}


def _only_journal(journals: Journals) -> Journal:
    """Hypothesis runs its examples on one fixture."""
    if id(journals) not in _JOURNALS:
        _JOURNALS.clear()
        _JOURNALS[id(journals)] = journals.create()
    return _JOURNALS[id(journals)]
