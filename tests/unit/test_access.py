"""`[logger] mode` and `group`: which can be, and what comes of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlog.adapters.access import Access
from dlog.adapters.data_files import DataDirectory
from dlog.errors import ConfigurationError
from dlog.model.access import folder_mode, umask_of
from dlog.model.config import parse_configuration


@pytest.fixture(autouse=True)
def _the_umask_as_it_was() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("mode", "folder", "umask"),
    [(0o600, 0o700, 0o077), (0o640, 0o750, 0o027), (0o660, 0o770, 0o007), (0o664, 0o775, 0o002)],
)
def test_a_mode_of_files_gives_that_of_folders(mode: int, folder: int, umask: int) -> None:
    assert (folder_mode(mode), umask_of(mode)) == (folder, umask)


@pytest.mark.parametrize("mode", ["0770", "660 ", "0060", "0620", "1660", "rw-rw----", "00660"])
def test_a_mode_that_cannot_be_is_refused_with_its_key(mode: str) -> None:
    with pytest.raises(ConfigurationError, match=r'logger.mode: .* cannot be: write .* "0660"'):
        parse_configuration({"logger": {"mode": mode}})


def test_a_mode_that_is_a_number_is_refused_since_640_is_no_0640() -> None:
    with pytest.raises(ConfigurationError, match=r"logger.mode: Expected `str`, got `int`"):
        parse_configuration({"logger": {"mode": 640}})


def test_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"logger.group: this machine has no group 'no-"):
        Access.configured("", "no-such-group")


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_files_come_out_as_configured_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    os.umask(umask)
    Access.configured("0660", "").hold()
    _make_all(tmp_path)
    assert mode_of(tmp_path / "runs") == mode_of(tmp_path / "runs/7") == 0o770
    assert mode_of(tmp_path / "runs/7/a_0001.dlog.part") == 0o660
    assert mode_of(tmp_path / "runs/7/b_0001.dlog") == 0o440
    assert mode_of(tmp_path / "runs/7/b_0001.dlog.json") == 0o440


def test_without_a_mode_the_umask_rules_for_closed_files_too(tmp_path: Path) -> None:
    os.umask(0o077)
    _make_all(tmp_path)
    assert mode_of(tmp_path / "runs/7") == 0o700
    assert mode_of(tmp_path / "runs/7/a_0001.dlog.part") == 0o600
    assert mode_of(tmp_path / "runs/7/b_0001.dlog") == 0o400
    assert mode_of(tmp_path / "runs/7/b_0001.dlog.json") == 0o400


def _make_all(root: Path) -> None:
    directory = DataDirectory(root)
    for name in ("a_0001.dlog.part", "b_0001.dlog"):
        directory.create(f"runs/7/{name}").close()
    directory.make_read_only("runs/7/b_0001.dlog")
    directory.write_new("runs/7/b_0001.dlog.json", b"{}")


def test_a_directory_that_is_there_gets_its_mode_and_keeps_its_setgid_bit(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(0o755)
    (tmp_path / "lock").touch(0o644)
    tmp_path.chmod(0o2755)
    assert Access.configured("0640", "").give_directory(tmp_path) == ""
    assert mode_of(tmp_path) == 0o2750
    assert mode_of(tmp_path / "runs") == 0o750
    assert mode_of(tmp_path / "lock") == 0o640


@pytest.mark.parametrize(
    ("before", "umask", "after"),
    [
        (0o2755, 0o002, 0o2775),
        (0o2755, 0o022, 0o2755),
        (0o755, 0o002, 0o755),
        (0o2700, 0o002, 0o2700),
    ],
)
def test_a_setgid_directory_is_the_groups_where_the_umask_allows(
    tmp_path: Path, before: int, umask: int, after: int
) -> None:
    tmp_path.chmod(before)
    os.umask(umask)
    Access().give_directory(tmp_path)
    assert mode_of(tmp_path) == after


def test_a_directory_of_a_group_hands_it_on(tmp_path: Path) -> None:
    ours = next((g for g in os.getgroups() if g != os.getegid()), 4242)
    if os.geteuid() and ours == 4242:
        pytest.skip("this user is in one group only")
    assert Access.configured("0660", str(ours)).give_directory(tmp_path) == ""
    assert mode_of(tmp_path) & stat.S_ISGID
    _make_all(tmp_path)
    assert {path.stat().st_gid for path in tmp_path.rglob("*")} == {ours}


def test_a_start_without_a_configuration_finds_the_access_of_the_last_one(tmp_path: Path) -> None:
    assert Access.found(tmp_path) == Access()
    (tmp_path / "lock").touch()
    (tmp_path / "lock").chmod(0o660)
    assert Access.found(tmp_path).mode == 0o660
