"""Configuration files, looked at before the parser does, whose complaints do not name them."""

from __future__ import annotations

import re
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from ccd_lightning.mistakes import meant, message_of


def check_config_files(arguments: list[str]) -> None:
    """Refuse configurations that are no files, no text, no YAML or no mapping, by their names; and options of one dash.

    Args:
        arguments: of the command line.

    Raises:
        MisconfigurationException: naming the file and what is wrong with it.
    """
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if re.fullmatch(r"-(config|[a-z_]+\..+)(=.*)?", argument):
            raise MisconfigurationException(
                f"{argument} begins with one dash, but options begin with two: write -{argument}."
            )
        name = following if argument in ("--config", "-c") else argument.partition("--config=")[2]
        # Lightning also takes addresses of remote files.
        if name and "://" not in name:
            _check_config(name)


def _check_config(name: str) -> None:
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
