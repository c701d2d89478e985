"""`dlog alarm-server`: receives the alarms of several loggers and prints what is new."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dlog.cli.output import console, json_line, plain, words
from dlog.cli.target import checked_address
from dlog.quantities import moment

if TYPE_CHECKING:
    from dlog.core.notices import News

_POLL_MS = 250


def command(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="tcp://HOST:PORT, for the loggers.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line for each news.")] = False,
) -> None:
    """Print each alarm that a logger raises, changes or clears, and loggers that fall silent."""
    from dlog.adapters.notice_links import NoticeServer
    from dlog.core.notices import Desk

    desk = Desk()
    with NoticeServer(checked_address(listen, "--listen", bound=True)) as server:
        words(f"alarm server on {server.address}")
        while True:
            reports = server.receive(_POLL_MS)
            now_ns = time.monotonic_ns()
            news = [new for report in reports for new in desk.take(report, now_ns)]
            for each in news + desk.tick(now_ns, time.time_ns()):
                json_line(each) if as_json else _tell(each)


def _tell(news: News) -> None:
    from rich.text import Text

    from dlog.cli.status import styled

    line = Text(f"{moment(news.time_ns)}  {plain(news.logger):<12} ")
    alarm = news.alarm
    if alarm is None:
        bad = news.kind in ("silent", "restarted")
        place = f"({plain(news.host)} pid {news.process})"
        line.append(f"{news.kind} {place}", "bold red" if bad else "dim")
    elif news.kind == "cleared":
        line.append(f"cleared  {plain(alarm.name)}", "green")
    else:
        line.append_text(styled(alarm.severity))
        line.append(f"  {plain(alarm.name)}: {plain(alarm.text)}")
    console().print(line, soft_wrap=True)
    sys.stdout.flush()
