"""What every data directory promises about names, real and simulated alike."""

from __future__ import annotations

import pytest

from dlog.errors import NameTaken, StorageError
from dlog.limits import PAGE_BYTES
from dlog.model.ids import Offset
from dlog.ports import Directory

PAGE = memoryview(bytes(range(256)) * (PAGE_BYTES // 256))


def test_a_created_file_is_empty_and_has_its_name(directory: Directory) -> None:
    file = directory.create("runs/7/photons_0001.dlog.part")
    assert file.path == "runs/7/photons_0001.dlog.part"
    assert file.size() == 0
    assert directory.exists("runs/7/photons_0001.dlog.part")
    assert directory.names("runs/7") == ["photons_0001.dlog.part"]
    assert directory.names("runs") == ["7"]


def test_a_name_is_given_once(directory: Directory) -> None:
    file = directory.create("a")
    file.write(Offset(0), PAGE)
    with pytest.raises(NameTaken):
        directory.create("a")
    with pytest.raises(NameTaken):
        directory.write_new("a", b"other")
    assert file.size() == PAGE_BYTES


def test_what_was_written_is_there_when_opened_again(directory: Directory) -> None:
    file = directory.create("a")
    file.write(Offset(0), PAGE)
    file.sync()
    file.close()
    assert directory.open("a", writable=False).read(Offset(0), 2 * PAGE_BYTES) == bytes(PAGE)
    assert directory.open("a", writable=True).read(Offset(10), 5) == bytes(PAGE[10:15])


def test_opening_what_is_not_there_fails(directory: Directory) -> None:
    with pytest.raises(StorageError, match="No such file"):
        directory.open("runs/1/a", writable=True)
    with pytest.raises(StorageError, match="No such file"):
        directory.open("runs/1/a", writable=False)
    assert not directory.exists("runs/1/a")


def test_a_file_opened_to_read_is_not_written(directory: Directory) -> None:
    directory.create("a").close()
    with pytest.raises(StorageError):
        directory.open("a", writable=False).write(Offset(0), PAGE)


def test_a_missing_folder_lists_nothing(directory: Directory) -> None:
    assert directory.names("runs/9") == []
    assert directory.names("") == []


def test_names_are_listed_sorted(directory: Directory) -> None:
    for name in ("b", "a", "c/d"):
        directory.write_new(name, b"")
    assert directory.names("") == ["a", "b", "c"]


def test_rename_moves_the_file_also_into_a_new_folder(directory: Directory) -> None:
    directory.write_new("runs/1/a.part", b"content")
    directory.rename("runs/1/a.part", "runs/1/a")
    directory.rename("runs/1/a", "quarantine/1/a")
    assert directory.names("runs/1") == []
    assert directory.read_all("quarantine/1/a", 100) == b"content"


def test_rename_never_replaces(directory: Directory) -> None:
    directory.write_new("a", b"a")
    directory.write_new("b", b"b")
    with pytest.raises(NameTaken):
        directory.rename("a", "b")
    assert directory.read_all("a", 9) == b"a"
    assert directory.read_all("b", 9) == b"b"


def test_renaming_what_is_not_there_fails_and_makes_nothing(directory: Directory) -> None:
    with pytest.raises(StorageError, match="No such file"):
        directory.rename("a", "b")
    assert directory.names("") == []


def test_a_file_stays_open_through_its_renaming(directory: Directory) -> None:
    file = directory.create("a.part")
    directory.rename("a.part", "a")
    file.write(Offset(0), PAGE)
    file.sync()
    assert directory.open("a", writable=False).size() == PAGE_BYTES


def test_a_small_file_is_written_whole(directory: Directory) -> None:
    content = bytes(range(256)) * 100
    directory.write_new("runs/1/sidecar.json", content)
    assert directory.names("runs/1") == ["sidecar.json"]
    assert directory.read_all("runs/1/sidecar.json", len(content)) == content


def test_a_small_file_that_is_too_large_is_not_read(directory: Directory) -> None:
    directory.write_new("a", b"12345")
    with pytest.raises(StorageError, match="more than 4 bytes"):
        directory.read_all("a", 4)


def test_a_removed_file_is_gone(directory: Directory) -> None:
    directory.write_new("a", b"")
    directory.remove("a")
    assert not directory.exists("a")
    with pytest.raises(StorageError):
        directory.remove("a")


def test_a_file_made_read_only_keeps_its_content(directory: Directory) -> None:
    file = directory.create("a")
    file.write(Offset(0), PAGE)
    file.sync()
    file.close()
    directory.make_read_only("a")
    assert directory.open("a", writable=False).read(Offset(0), PAGE_BYTES) == bytes(PAGE)


@pytest.mark.parametrize(
    "path", ["../a", "/etc/passwd", "a/../../b", "", ".", "a//b", "a/", "./a", "a/./b", "a\0b"]
)
def test_a_path_that_leads_out_is_refused(directory: Directory, path: str) -> None:
    with pytest.raises(StorageError, match="not a path inside"):
        directory.create(path)
    with pytest.raises(StorageError, match="not a path inside"):
        directory.write_new(path, b"")
    directory.write_new("good", b"")
    with pytest.raises(StorageError, match="not a path inside"):
        directory.rename("good", path)


def test_it_tells_its_space(directory: Directory) -> None:
    space = directory.space()
    assert 0 < space.free <= space.total
    assert directory.name


def test_the_names_of_a_folder_can_be_made_durable_again(directory: Directory) -> None:
    directory.create("runs/1/a.dlog").close()
    directory.sync_names("runs/1")
    assert directory.names("runs/1") == ["a.dlog"]


def test_a_folder_that_is_not_there_has_no_names_to_make_durable(directory: Directory) -> None:
    directory.sync_names("runs/2")
    assert not directory.exists("runs/2")


@pytest.mark.parametrize("folder", ["runs/7", "runs/8"])
def test_trying_a_file_out_leaves_nothing_behind(directory: Directory, folder: str) -> None:
    directory.create("runs/7/a.dlog").close()
    free = directory.space().free
    directory.try_out(f"{folder}/b.dlog", 3 * PAGE_BYTES + 1)
    assert directory.names("") == ["runs"]
    assert directory.names("runs") == ["7"]
    assert directory.names("runs/7") == ["a.dlog"]
    assert directory.space().free >= free - 64 * PAGE_BYTES  # others use the real one too


def test_a_file_tells_the_space_of_its_filesystem(directory: Directory) -> None:
    file = directory.create("a")
    assert 0 < file.free_bytes() <= directory.space().total


def lost_by(directory: Directory, how: str) -> None:
    if how == "moved":
        directory.rename("runs/7/a.part", "kept/b")
    else:
        directory.remove("runs/7/a.part")
    if how == "replaced":
        directory.write_new("runs/7/a.part", b"another")


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_an_open_file_knows_when_its_name_leads_elsewhere(directory: Directory, how: str) -> None:
    file = directory.create("runs/7/a.part")
    assert file.lost("runs/7/a.part") == ""
    assert file.lost("runs/7/a") != ""
    lost_by(directory, how)
    words = {"deleted": "deleted", "moved": "moved", "replaced": "another file"}[how]
    assert words in file.lost("runs/7/a.part")
    assert file.lost("kept/b") == "" or how != "moved"


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_an_open_file_gets_its_name_back_with_what_it_held(directory: Directory, how: str) -> None:
    file = directory.create("runs/7/a.part")
    file.reserve(Offset(8 * PAGE_BYTES))
    file.write(Offset(0), PAGE)
    file.write(Offset(PAGE_BYTES), PAGE)
    file.sync()
    lost_by(directory, how)
    assert file.save(Offset(2 * PAGE_BYTES))
    again = directory.open("runs/7/a.part", writable=True)
    assert again.read(Offset(0), 2 * PAGE_BYTES) == bytes(PAGE) * 2
    assert again.size() == (2 if how == "deleted" else 8) * PAGE_BYTES
    assert again.lost("runs/7/a.part") == ""
    assert directory.names("runs/7") == ["a.part"]


def test_a_file_that_stands_in_the_place_of_a_lost_one_is_not_replaced(
    directory: Directory,
) -> None:
    file = directory.create("runs/7/a.part")
    lost_by(directory, "replaced")
    with pytest.raises(NameTaken):
        file.save(Offset(0))
    assert directory.read_all("runs/7/a.part", 100) == b"another"
