"""Groups of commands: plain help, in which nothing is markup; a mistyped word gets a suggestion."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from dlog.errors import meant


class Group(TyperGroup):
    """A group whose commands are called by their whole names."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no command {name!r}{meant(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(c.help)) for name, c in commands if c])


def _first_sentence(text: str | None) -> str:
    words = " ".join((text or "").partition("\n\n")[0].split())
    sentence, end, _ = words.partition(". ")
    return sentence + end.strip()


def group(help_: str) -> typer.Typer:
    """An empty one. Without a markup mode, brackets in a help text are brackets, and paragraphs
    flow."""
    return typer.Typer(
        cls=Group,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=help_,
    )
