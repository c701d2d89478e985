"""The golden damaged files: what is said of each of them, and that they are what is committed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dlog.cli.main import app
from fixtures import make_damaged

CASES = sorted(path.name for path in make_damaged.GOLDEN.iterdir())


def expected(case: str) -> dict[str, Any]:
    text = (make_damaged.GOLDEN / case / make_damaged.EXPECTED).read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("case", CASES)
def test_verify_says_of_a_damaged_file_what_is_expected(case: str) -> None:
    folder = make_damaged.GOLDEN / case
    result = CliRunner().invoke(app, ["verify", "--json", str(folder)])
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    for report in reports:
        report["path"] = os.path.relpath(report["path"], folder)
    assert reports == expected(case)["reports"]
    assert result.exit_code == expected(case)["exit_code"]


@pytest.mark.parametrize("case", CASES)
def test_recover_keeps_what_is_expected_and_its_output_verifies(case: str, tmp_path: Path) -> None:
    folder = make_damaged.GOLDEN / case
    before = make_damaged.contents(folder)
    output = tmp_path / "out"
    result = CliRunner().invoke(app, ["recover", "--json", str(folder), "-o", str(output)])
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == expected(case)["exit_code"]
    assert make_damaged.contents(folder) == before
    for recovery, salvage in zip(told, expected(case)["salvage"], strict=True):
        if recovery["outcome"] in ("recovered", "nothing", "unsupported"):
            assert recovery["blocks_kept"] == salvage["blocks_kept"]
            assert recovery["gaps"] == salvage["gaps"]
        if recovery["outcome"] == "recovered":
            verified = CliRunner().invoke(app, ["verify", "--json", recovery["destination"]])
            assert verified.exit_code == 0, verified.output
            assert json.loads(verified.stdout)["state"] == "recovered"


def test_every_exit_code_of_a_verdict_has_its_golden_file() -> None:
    assert {expected(case)["exit_code"] for case in CASES} == {0, 3, 4, 5, 6}


def test_the_golden_files_are_what_their_script_makes() -> None:
    assert make_damaged.differences() == []
