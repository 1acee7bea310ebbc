"""Options in sections, so that a long help page can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["SectionedCommand", "in_section", "with_all"]


F = TypeVar("F", bound=Callable[..., Any])


class _Option(click.Option):
    """An option that knows its section of the help page."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help page lists its options section by section, in the order in which they were declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                section = parameter.section if isinstance(parameter, _Option) else "Output"
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records, col_max=34)


def in_section(section: str, *names: str, **kwargs: Any) -> Callable[[F], F]:
    """``click.option`` in a section of the help page."""
    return click.option(*names, cls=_Option, section=section, **kwargs)


def with_all(*options: Callable[..., Any]) -> Callable[[F], F]:
    """All these options; the first of them comes first on the help page."""

    def decorated(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorated
