"""How formats are found: ours by the entry points of pyproject.toml, and a user's own."""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import dlog.inputs
from dlog.errors import FormatError, StorageError
from dlog.inputs import Catalogue, InputBroken, InputUsageError, installed, parsed_options
from dlog.inputs.catalogue import GROUP
from dlog.inputs.event import InputEvent
from tests.rig.commands import CHECKOUT

PYPROJECT = CHECKOUT / "pyproject.toml"


def declared() -> list[EntryPoint]:
    group = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"][GROUP]
    return [EntryPoint(name, value, GROUP) for name, value in group.items()]


@pytest.fixture
def ours() -> Catalogue:
    return Catalogue(declared())


@pytest.fixture
def paragraphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    """The plug-in of the docstring of `dlog.inputs`, installed as a user would."""
    assert dlog.inputs.__doc__ is not None
    example = re.search(r"\n    from collections.*?\n(?=\S)", dlog.inputs.__doc__, re.DOTALL)
    assert example
    site = tmp_path / "site"
    dist_info = site / "my_package-1.0.dist-info"
    dist_info.mkdir(parents=True)
    (site / "my_paragraphs.py").write_text(textwrap.dedent(example[0]))
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    value = "my_paragraphs:Paragraphs"
    (dist_info / "entry_points.txt").write_text(f"[{GROUP}]\nparagraphs = {value}\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "my_paragraphs", raising=False)
    return EntryPoint("paragraphs", value, GROUP)


def test_our_formats_are_declared_and_load(ours: Catalogue) -> None:
    assert ours.names == ("folder", "lines", "records", "xtc2")
    assert [plugin.name for plugin in ours] == list(ours.names)


@pytest.mark.parametrize(
    ("name", "content", "format_name"),
    [
        ("hits.txt", b"1\t2\t3\n", "lines"),
        ("hits", "µ-tracks\n".encode(), "lines"),
        ("run.xtc2", b"\x00" * 11 + b"\x02" + b"\x00" * 8 + b"\x0c\x00\x00\x00", "xtc2"),
        ("run", b"\x00" * 11 + b"\x02" + b"\x00" * 8 + b"\x0c\x00\x00\x00", "xtc2"),
        ("damaged.xtc2", b"\x00\xff" * 12, "xtc2"),
    ],
)
def test_a_file_is_recognised(
    ours: Catalogue, tmp_path: Path, name: str, content: bytes, format_name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert ours.recognised(tmp_path / name).name == format_name


def test_a_folder_is_recognised(ours: Catalogue, tmp_path: Path) -> None:
    assert ours.recognised(tmp_path).name == "folder"


def test_recorded_data_are_recognised(ours: Catalogue, real_data: Path) -> None:
    for path in sorted((real_data / "lcls2").glob("*.xtc2")):
        assert ours.recognised(path).name == "xtc2"
    assert ours.recognised(real_data / "cernatschool").name == "folder"
    for path in (real_data / "cernatschool").rglob("*.txt"):
        assert ours.recognised(path).name == "lines"


def test_a_file_that_nobody_recognises_needs_its_format(ours: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "adc.bin"
    path.write_bytes(b"\x00\xff" * 32)
    with pytest.raises(InputUsageError, match="there are folder, lines, records, xtc2"):
        ours.recognised(path)
    events = list(ours.events(path, {"size": "32"}, format_name="records"))
    assert len(events) == 2


def test_a_file_that_two_recognise_needs_its_format(ours: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "letter.xtc2"
    path.write_text("This is a letter to the editor of a newspaper.")
    with pytest.raises(InputUsageError, match="lines or xtc2"):
        ours.recognised(path)


def test_missing_and_empty_files_are_refused_before_any_format_is_asked(
    ours: Catalogue, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="No such file"):
        ours.recognised(tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    with pytest.raises(FormatError, match="the file is empty"):
        ours.recognised(tmp_path / "empty")


def test_an_unknown_format_and_an_unknown_option_are_usage_errors(
    ours: Catalogue, tmp_path: Path
) -> None:
    with pytest.raises(InputUsageError, match="no format is called 'root'") as caught:
        ours.events(tmp_path, {}, format_name="root")
    assert caught.value.exit_code == 2
    with pytest.raises(InputUsageError, match="format folder has no option size; it takes glob"):
        ours.events(tmp_path, {"size": "4"})


def test_without_an_installed_dlog_the_error_says_so() -> None:
    with pytest.raises(InputUsageError, match="pip install"):
        Catalogue([])["lines"]


def test_options_are_typed_as_name_and_value() -> None:
    assert parsed_options(["size=4", "glob=a=b", "size=5"]) == {"size": "5", "glob": "a=b"}
    for wrong in ("size", "=4", ""):
        with pytest.raises(InputUsageError, match="NAME=VALUE"):
            parsed_options([wrong])


# --- a user's own format


def test_the_documented_plugin_is_found_and_works(paragraphs: EntryPoint, tmp_path: Path) -> None:
    assert paragraphs.name in installed().names
    path = tmp_path / "log.par"
    path.write_text("a\nb\n\nc\n")
    # It is text too, and goes before our own format for that.
    events = Catalogue([*declared(), paragraphs]).events(path, {})
    assert [e.payload for e in events if isinstance(e, InputEvent)] == [b"a\nb\n\n", b"c\n"]


def test_a_broken_plugin_is_named_and_leaves_the_others(tmp_path: Path) -> None:
    broken = EntryPoint("broken", "no_such_module:Format", GROUP)
    catalogue = Catalogue([*declared(), broken])
    assert catalogue["lines"].name == "lines"
    with pytest.raises(InputBroken, match=r"format broken \(no_such_module:Format\)"):
        catalogue["broken"]


def test_a_plugin_that_is_no_input_is_refused() -> None:
    for value in ("collections:Counter", "dlog.inputs.lines:Lines"):
        with pytest.raises(InputBroken, match="is no Input of that name"):
            Catalogue([EntryPoint("other", value, GROUP)])["other"]


def test_two_plugins_of_one_name_are_refused() -> None:
    ours_twice = [*declared(), *declared()]
    assert Catalogue(ours_twice)["lines"].name == "lines"
    another = EntryPoint("lines", "elsewhere:Lines", GROUP)
    with pytest.raises(InputBroken, match="more than one format is called 'lines'"):
        Catalogue([*declared(), another])["lines"]
