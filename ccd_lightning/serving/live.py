"""The model that is served now, and how a new export takes its place."""

from __future__ import annotations

import time
from pathlib import Path

from ccd_lightning.serving.model import ServedModel, load_export


class LiveModel:
    """The newest whole export of a folder.

    Args:
        folder: the export, which may be replaced at any time.

    Attributes:
        model: what is served.
        since: Unix time from which it is.
        refused: why the newest export is not served; ``None`` if it is.
        is_settled: whether the folder was at the last look as at the one before, so that nobody is writing into it.

    Raises:
        ValueError: if there is no export that can be served.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._looked_at = _signature(folder)
        self.model: ServedModel = load_export(folder)
        self.since = time.time()
        self.refused: str | None = None
        self.is_settled = True

    def refresh(self) -> bool:
        """Look at the folder, and take what is new there.

        A new export that cannot be served is refused, with the reason in :attr:`refused`, and the old one stays. It is tried
        again at every look: what was in the way, such as a lack of memory, may pass without a change of its files.

        Returns:
            whether another model is served now.
        """
        signature = _signature(self.folder)
        self.is_settled = signature == self._looked_at
        if self.is_settled and self.refused is None:
            return False
        self._looked_at = signature
        try:
            model = load_export(self.folder)
        except Exception as error:
            # Whatever it is, the old model goes on answering, and nobody else would hear of it.
            self.refused = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            return False
        self.refused = None
        if model.version == self.model.version:
            return False
        self.model, self.since = model, time.time()
        return True


def _signature(folder: Path) -> list[tuple[str, int, int, int, int]] | None:
    """What changes whenever a file of the folder does; ``None`` if it is gone or changing now."""
    try:
        stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:
        return None
    return [(name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats]
