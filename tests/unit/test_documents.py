"""The documents say what the code does: generated tables, alarms, configuration keys, links."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from dlog.core import fate
from dlog.core.alarm_kinds import KINDS, OVERFLOW
from dlog.model.config import InitConfig, LoggerConfig, StreamConfig, parse_bytes
from dlog.services.alarms import ALARMS_MAX
from dlog.services.source_alarms import OF_A_SESSION
from tests.rig.commands import CHECKOUT

OPERATING = CHECKOUT / "docs" / "OPERATING.md"
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])


# --- ARCHITECTURE -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make_architecture() -> ModuleType:
    script = CHECKOUT / "docs" / "make_architecture.py"
    spec = importlib.util.spec_from_file_location("make_architecture", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_architecture_are_what_would_be_written(
    make_architecture: ModuleType,
) -> None:
    text = make_architecture.TARGET.read_text()
    assert make_architecture.document(text) == text
    assert make_architecture.main(["--check"]) == 0


def test_tables_that_are_not_are_found(
    make_architecture: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "ARCHITECTURE.md"
    copy.write_text(make_architecture.TARGET.read_text().replace("| forget |", "| remember |"))
    monkeypatch.setattr(make_architecture, "TARGET", copy)
    assert make_architecture.main(["--check"]) == 1
    assert make_architecture.main([]) == 0
    assert make_architecture.main(["--check"]) == 0


def test_architecture_names_modules_that_exist() -> None:
    text = (CHECKOUT / "docs" / "ARCHITECTURE.md").read_text()
    table = text[text.index("## The way of an event") : text.index("## The journal")]
    named = set(re.findall(r"`((?:core|services|adapters)/\w+)`", table))
    assert len(named) > 15
    assert [n for n in sorted(named) if not (CHECKOUT / "dlog" / f"{n}.py").is_file()] == []


# --- OPERATING: alarms --------------------------------------------------------------------------


def _first_words(method: str) -> set[str]:
    """The first word of each alarm's name that this method of a board is called with."""
    methods = (method, "show")  # which raises and clears
    calls = [
        call
        for call in _calls()
        if getattr(call.func, "attr", "") in methods and len(call.args) in (1, 3)
    ]
    return {word for call in calls for word in _first_word(call.args[0])}


@functools.cache
def _calls() -> list[ast.Call]:
    """All calls but those of the board itself."""
    return [
        node
        for path in (CHECKOUT / "dlog").rglob("*.py")
        if path.name != "alarms.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def _first_word(argument: ast.expr) -> Collection[str]:
    begin = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
    if isinstance(begin, ast.FormattedValue):
        assert ast.unparse(begin) == "{kind}"
        return OF_A_SESSION
    if isinstance(begin, ast.Name):
        assert begin.id == "alarm"  # of a file, which is said two lines above
        return ["file"]
    assert isinstance(begin, ast.Constant), "an alarm's name begins with a word of its own"
    return [str(begin.value).split()[0]]


def test_each_alarm_that_is_raised_has_its_kind_and_each_kind_is_raised() -> None:
    assert _first_words("raise_alarm") | {OVERFLOW} == set(KINDS)


def test_each_alarm_is_cleared_or_acknowledged_as_its_kind_says() -> None:
    by_event = {name for name, kind in KINDS.items() if kind.cleared_when}
    by_a_start = {"configuration", "failure"}  # no alarm outlives the process
    assert _first_words("clear_alarm") == by_event - by_a_start - {OVERFLOW}
    assert [name for name, kind in KINDS.items() if not kind.until] == []


def test_operating_tells_of_every_alarm_and_of_no_other() -> None:
    text = OPERATING.read_text()
    section = text[text.index("## Alarms") : text.index("## Full disk")]
    rows = re.findall(r"^\| `([\w-]+)`.*\| ([^|]+) \|$", section, re.M)
    assert {name for name, _ in rows} == set(KINDS)
    assert [row for row in rows if row[1] != KINDS[row[0]].until] == []
    assert f"more than {ALARMS_MAX} at once" in section


def test_operating_tells_of_every_reason_for_a_refusal() -> None:
    reasons = [v for k, v in vars(fate).items() if k.isupper() and isinstance(v, str)]
    assert len(reasons) >= 4
    assert [reason for reason in reasons if f"`{reason}`" not in OPERATING.read_text()] == []


# --- OPERATING: configuration -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LoggerConfig, InitConfig, StreamConfig])
def test_operating_shows_every_key_with_its_default(kind: type[msgspec.Struct]) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", OPERATING.read_text(), re.M))
    for name, value in msgspec.to_builtins(kind()).items():
        shown = tomllib.loads(f"key = {rows[name]}")["key"]
        sized = name.endswith("_bytes") and name != "element_bytes"
        written = parse_bytes(shown) if sized else shown
        assert written == (list(value) if isinstance(value, tuple) else value), name


# --- links --------------------------------------------------------------------------------------


def _links(path: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in _links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link
