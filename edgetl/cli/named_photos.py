"""The photos that ``edgetl predict`` is given: files, folders, lists, shards and stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.cli.terminal.terminal_text import print_warnings, printable_lines

if TYPE_CHECKING:
    from edgetl.runtime.images.photo_list import ListedPhoto
    from edgetl.runtime.images.photo_places import StoredPlace


def warn_of_empty_folders(photos: tuple[str, ...]) -> None:
    """Warn of folders without a photo, unless all arguments are such folders."""
    from edgetl.runtime.images.discovery import is_folder, walk_images

    folders = [name for name in photos if is_folder(Path(name))]
    empty = [name for name in folders if next(walk_images(name, strict=False), None) is None]
    if len(empty) < len(photos):
        print_warnings(f"there is no photo in {name}." for name in empty)


def read_lists(
    photos: Sequence[str], columns: str | None, root: Path | None
) -> list[str | ListedPhoto | StoredPlace]:
    """The arguments, with the photos of each list in its place. Warns of missing files."""
    from edgetl.errors import DataError
    from edgetl.runtime.images.photo_list import (
        is_photo_list,
        read_photo_list,
        refuse_list_options,
        require_files,
    )
    from edgetl.runtime.images.photo_places import StoredPlace, is_stored

    arguments: list[str | ListedPhoto | StoredPlace] = []
    for name in photos:
        if is_stored(name):
            arguments.append(StoredPlace(name, columns))
            continue
        if not is_photo_list(name):
            arguments.append(name)
            continue
        listed = read_photo_list(name, columns=columns, root=root)
        try:
            require_files(name, listed)
        except DataError as error:  # the others are still classified
            click.echo(printable_lines(f"Warning: {error}"), err=True)
        arguments += listed
    if not any(map(is_photo_list, photos)):
        refuse_list_options(photos[0], None if has_stored(arguments) else columns, root)
    return arguments


def has_stored(arguments: Iterable[str | ListedPhoto | StoredPlace]) -> bool:
    """Whether some of the photos are in shards or in a store."""
    from edgetl.runtime.images.photo_places import StoredPlace

    return any(isinstance(argument, StoredPlace) for argument in arguments)
