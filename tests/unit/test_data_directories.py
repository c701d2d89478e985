"""Data directories of the configuration against those that the journal knows of."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlog.adapters.journal import LmdbJournal
from dlog.core import journal_records as records
from dlog.core.journal_records import FileRecord, JournalMeta, QuarantineRecord
from dlog.core.states import FileState
from dlog.errors import ConfigurationError
from dlog.logger import Logger
from dlog.model.config import Configuration, parse_configuration
from dlog.model.ids import FileKey, FileKind, PartNumber, RunNumber, StreamName

KEY = FileKey(RunNumber(7), StreamName("photons"), FileKind.EVENTS, PartNumber(1))
FILE = FileRecord(
    run=7, stream="photons", kind=1, part=1, state=FileState.ERROR, directory=1,
    path="runs/7/photons_0001.dlog", file_uuid=bytes(16), salt=bytes(16), boot=1, created_ns=0,
    sealed=True,
)  # fmt: skip
TAIL = QuarantineRecord(
    path="quarantine/a.tail", directory=1, run=7, stream="photons", kind=1, part=1, begin=4096,
    end=8192, saved_ns=0,
)  # fmt: skip


def with_config(tmp_path: Path, key: bytes, value: bytes, *data: str) -> JournalMeta:
    paths = [str(tmp_path / name) for name in data]
    config: Configuration = parse_configuration({"logger": {"data": paths}})
    logger = Logger.__new__(Logger)
    logger._config = config
    meta = JournalMeta(
        logger_uuid=bytes(16), name="dlog", created_ns=0,
        data=tuple(str((tmp_path / name).resolve()) for name in ("one", "two", "three")),
    )  # fmt: skip
    with LmdbJournal.create(tmp_path / "journal") as journal:
        journal.commit([(key, value)])
        return logger._with_config(journal, meta)


@pytest.mark.parametrize("data", [("one", "three"), ("one", "three", "two")])
@pytest.mark.parametrize("record", [FILE, TAIL])
def test_a_directory_with_unsettled_files_stays_where_it_is(
    tmp_path: Path, record: FileRecord | QuarantineRecord, data: tuple[str, ...]
) -> None:
    # The restart looked for them in another directory, or in none: it ended with an IndexError.
    key = records.file_key(KEY) if record is FILE else records.quarantine_key(TAIL.path)
    with pytest.raises(ConfigurationError, match="it must stay at position 1"):
        with_config(tmp_path, key, records.encode_record(key, record), *data)


@pytest.mark.parametrize("record", [FILE, TAIL])
def test_one_that_is_left_out_is_kept_until_its_files_are_settled(
    tmp_path: Path, record: FileRecord | QuarantineRecord
) -> None:
    key = records.file_key(KEY) if record is FILE else records.quarantine_key(TAIL.path)
    meta = with_config(tmp_path, key, records.encode_record(key, record), "one")
    assert [Path(path).name for path in meta.data] == ["one", "two"]


def test_the_others_may_change(tmp_path: Path) -> None:
    key = records.file_key(KEY)
    value = records.encode_record(key, FILE)
    meta = with_config(tmp_path, key, value, "moved", "two", "new", "newer")
    assert [Path(path).name for path in meta.data] == ["moved", "two", "new", "newer"]
