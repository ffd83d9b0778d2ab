"""Put every command's help text into README.md, between its markers: one source, two places to read it.

python scripts/write_help.py            write it
python scripts/write_help.py --check    exit 1 if README.md is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from edgetl.cli.main import command as program
from edgetl.cli.train import EVERY_OPTION

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- commands: written by scripts/write_help.py -->", "<!-- end of commands -->"
WIDTH = 100


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below ``group`` with its full name, in order."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def help_texts() -> str:
    """The README's section: one foldable block a command."""
    blocks = []
    for name, command in commands(program, "edgetl"):
        context = click.Context(
            command, info_name=name, terminal_width=WIDTH, help_option_names=["-h", "--help"]
        )
        context.meta[EVERY_OPTION] = True
        text = command.get_help(context)
        summary = (command.short_help or command.get_short_help_str(200)).rstrip(".")
        blocks.append(
            f"<details><summary><code>{name}</code>: {summary}</summary>\n\n```\n{text}\n```\n\n</details>\n"
        )
    return "\n".join(blocks)


def updated(readme: str) -> str:
    """``readme`` with today's help texts."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n\n{help_texts()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    current = README.read_text(encoding="utf-8")
    fresh = updated(current)
    if "--check" in sys.argv[1:]:
        sys.exit("README.md is out of date: run scripts/write_help.py" if fresh != current else 0)
    README.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
