"""Configuration files, looked at before the parser does, whose complaints do not name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from ccd_lightning.mistakes import meant, message_of


def check_config_files(arguments: list[str]) -> dict[str, Any]:
    """Refuse configurations that are no files, no text, no YAML or no mapping, by their names; and options that mislead.

    Those begin with one dash, point into a list of the configuration, where they would change its last entry alone, or stand
    before a configuration that sets the same.

    Args:
        arguments: of the command line.

    Returns:
        what each file holds, by its name.

    Raises:
        MisconfigurationException: naming the file, or the option, and what is wrong with it.
    """
    contents: dict[str, Any] = {}
    before: list[str] = []
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if re.fullmatch(r"-(config|[a-z_]+\..+)(=.*)?", argument):
            raise MisconfigurationException(
                f"{argument} begins with one dash, but options begin with two: write -{argument}."
            )
        name = following if argument in ("--config", "-c") else argument.partition("--config=")[2]
        # Lightning also takes addresses of remote files.
        if name and "://" not in name:
            # Given twice, it is laid over what came between.
            contents[name] = contents.pop(name, None) or _read(name)
            _refuse_what_is_set_again(before, name, contents[name])
        before.append(argument)
    _refuse_parts_of_lists(arguments, list(contents.values()))
    return contents


def check_empty_sections(contents: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse empty mappings under keys that do not exist: the parser, which only looks at values, passes them by.

    Args:
        contents: what each configuration file holds.
        config: what the parser made of them.

    Raises:
        MisconfigurationException: naming the file and the key.
    """
    for name, content in contents.items():
        for keys in _empty_sections(content):
            section: Any = config
            for depth, key in enumerate(keys):
                place = holder(section, key)
                if place is None and isinstance(section, Mapping) and key not in ("init_args", "dict_kwargs"):
                    known = [*section, *(section.get("init_args") or {})]
                    raise MisconfigurationException(
                        f"{name}: there is no `{'.'.join(keys[: depth + 1])}`{meant(key, known)}"
                    )
                section = None if place is None else place[key]


def holder(config: Any, key: str) -> Mapping[str, Any] | None:
    """The mapping of a configuration that holds the next key of a dotted option, which may leave ``init_args`` out.

    >>> holder({"class_path": "Log", "init_args": {"core": 5}}, "core")
    {'core': 5}
    """
    inner = config.get("init_args") if isinstance(config, Mapping) else None
    place = inner if isinstance(inner, Mapping) and key in inner else config
    return place if isinstance(place, Mapping) and key in place else None


def _refuse_parts_of_lists(arguments: list[str], contents: list[Any]) -> None:
    config: Any = reduce(_laid_over, contents, {})
    given = [argument[2:].partition("=")[0] for argument in arguments if argument.startswith("--")]
    for option in given:
        place, found = _list_above(config, option)
        # A list that the command line sets itself, or adds to, goes on there.
        if found and not option.endswith(".help") and not {place, f"{place}+"} & set(given):
            raise MisconfigurationException(
                f"`{place}` is a list of {len(found)}: lists are set in a YAML overlay, so `--{option}` is refused."
            )


def _refuse_what_is_set_again(options: list[str], name: str, content: Any) -> None:
    """The later one wins, which would leave an option without effect, and its user without a word of it."""
    for option in options:
        key = option[2:].partition("=")[0] if option.startswith("--") else ""
        config: Any = content
        for part in key.split("."):
            place = holder(config, part)
            if place is None:
                break
            config = place[part]
        else:
            raise MisconfigurationException(
                f"`--{key}` stands before `--config {name}`, which sets it to {config!r} and would win: put options behind the"
                " configurations."
            )


def _empty_sections(content: Any) -> Iterator[tuple[str, ...]]:
    """The keys that lead to each empty mapping; those of lists have no names and are left out."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from ((str(key), *inner) for inner in _empty_sections(value)) if value else [(str(key),)]


def _laid_over(config: Any, overlay: Any) -> Any:
    """Mappings are joined; OmegaConf would refuse what the parser takes, a mapping in place of a list."""
    if not isinstance(config, dict) or not isinstance(overlay, dict):
        return overlay
    return config | {key: _laid_over(config.get(key), value) for key, value in overlay.items()}


def _list_above(config: Any, option: str) -> tuple[str, list[Any]]:
    """The list that an option points into, and its place; empty if there is none."""
    keys = option.split(".")
    for depth, key in enumerate(keys[:-1], start=1):
        place = holder(config, key)
        if place is None:
            break
        config = place[key]
        if isinstance(config, list):
            return ".".join(keys[:depth]), config
    return "", []


def _read(name: str) -> dict[Any, Any]:
    path = Path(name)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        beside = [str(file) for file in sorted(path.parent.glob("*.y*ml")) if file.is_file()]
        raise MisconfigurationException(
            f"The configuration {name} {found}{meant(name, beside)} Pass a YAML file, such as `--config configs/ccd.yaml`."
        )
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:
        raise MisconfigurationException(
            f"The configuration {name} cannot be read as YAML ({message_of(error)}): mend it; configs/ccd.yaml shows the form."
        ) from error
    # A lone word is read as a key without a value.
    if not isinstance(content, dict) or all(value is None for value in content.values()):
        found = "no mapping of keys to values" if content else "nothing"
        raise MisconfigurationException(
            f"The configuration {name} holds {found}, but keys such as `trainer:` and `data:` were expected: mend it;"
            " configs/ccd.yaml shows the form."
        )
    return content
