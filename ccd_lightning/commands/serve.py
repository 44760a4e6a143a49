"""Serve the recommendations of an export over HTTP.

Answers `GET /recommend/{user}?k=20`, and takes new exports in without a restart.
"""

from __future__ import annotations

import argparse
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

PACKAGES = ("fastapi", "onnxruntime", "prometheus_client", "uvicorn")
"""What the extra `serve` brings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments.

    Args:
        parser: where they go.
    """
    parser.add_argument("export", help="folder that `export` has written, such as runs/ccd/export")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    parser.add_argument("--poll", type=float, default=2.0, help="seconds between two looks for a new export")


def run(arguments: Any) -> None:
    """Serve until the process is stopped.

    Args:
        arguments: the parsed arguments.

    Raises:
        ValueError: if a package is missing, the export cannot be served, or the address is taken.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"`serve` needs {', '.join(missing)}, which is not installed: `pip install 'ccd-lightning[serve]'`."
        )
    if not arguments.poll > 0:
        raise ValueError(f"`--poll` is {arguments.poll}, but must be above 0: give a number of seconds, such as 2.")
    import uvicorn

    from ccd_lightning.serving.app import application
    from ccd_lightning.serving.live import LiveModel

    live = LiveModel(Path(arguments.export))
    listener = _listen(arguments.host, arguments.port)
    host, port = listener.getsockname()[:2]
    print(
        f"Serving {live.folder} (version {live.model.version}, block {live.model.manifest['block']}) on http://{host}:{port}",
        flush=True,
    )
    config = uvicorn.Config(application(live, arguments.poll), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"{host}:{port} cannot be listened on ({error}): stop what listens there, or name another `--host` or `--port`."
        ) from error
    # asyncio does this for sockets of its own alone; without it every second write waits 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _Parser(argparse.ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}. `--help` lists every option.\n")


def main(args: list[str] | None = None) -> None:
    """Run this command alone: nothing that training needs is imported.

    Args:
        args: arguments in place of those of the process, `serve` first.
    """
    arguments = list(sys.argv[1:] if args is None else args)[1:]
    parser = _Parser(prog="train.py serve", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    try:
        run(parser.parse_args([argument for argument in arguments if argument != "--debug"]))
    except ValueError as error:
        if "--debug" in arguments:
            raise
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        # As the shell reports whatever ends by Ctrl-C.
        parser.exit(130)
