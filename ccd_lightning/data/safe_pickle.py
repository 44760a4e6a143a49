"""Unpickling of plain containers and integers, and of nothing else."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn


class _Sealed(type):
    """Classes whose attributes no pickle can set: its BUILD instruction works on classes as on any object."""

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it tries to change {cls.__name__}.{name}")


class _ListDict(dict[Any, Any], metaclass=_Sealed):
    """Stands for ``defaultdict(list)``."""

    __slots__ = ()

    def __init__(self, factory: object = None) -> None:
        if factory is not None and factory is not _List:
            raise pickle.UnpicklingError(f"it holds a defaultdict of {factory!r}, where only `list` is admitted")
        super().__init__()


class _List(list[Any], metaclass=_Sealed):
    """Stands for ``list``."""

    __slots__ = ()


class _IntegerType(metaclass=_Sealed):
    """Stands for ``numpy.dtype`` of an integer."""

    __slots__ = ("byte_order", "signed", "width")

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch("[iu][1248]", str(code)):
            raise pickle.UnpicklingError(f"it holds numpy.dtype({code!r}), where only integers are admitted")
        self.byte_order, self.signed, self.width = "<", code[0] == "i", int(code[1])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = str(state[1])


class NumpyInteger(int, metaclass=_Sealed):
    """Stands for a numpy integer, and is a plain one."""

    __slots__ = ()

    def __new__(cls, kind: object, data: object) -> NumpyInteger:
        """Decode the bytes that numpy's ``scalar`` would."""
        if not isinstance(kind, _IntegerType) or not isinstance(data, bytes) or len(data) != kind.width:
            raise pickle.UnpicklingError("it holds a numpy scalar that is no integer")
        order: Literal["big", "little"] = "big" if kind.byte_order == ">" else "little"
        return super().__new__(cls, int.from_bytes(data, order, signed=kind.signed))


class _PlainUnpickler(pickle.Unpickler):
    _STAND_INS: ClassVar[dict[tuple[str, str], type]] = {
        ("builtins", "list"): _List,
        # What Python 2 calls it, and with it protocols up to 2.
        ("__builtin__", "list"): _List,
        ("collections", "defaultdict"): _ListDict,
        ("numpy", "dtype"): _IntegerType,
        ("numpy.core.multiarray", "scalar"): NumpyInteger,
        ("numpy._core.multiarray", "scalar"): NumpyInteger,
    }

    def find_class(self, module: str, name: str) -> type:
        """Hand out stand-ins for the admitted names; the pickle's own classes are never looked up."""
        found = self._STAND_INS.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for `{module}.{name}`, which is refused since it could run any code")
        return found


def load_plain(path: Path) -> Any:
    """Read a pickle of dicts, defaultdicts of lists, lists, tuples, strings and (numpy) integers.

    Args:
        path: the file.

    Raises:
        pickle.UnpicklingError: naming what else the file asks for; it is refused before any of it is imported or run.
        EOFError: if the file is cut off. Garbage may raise other errors of Python's unpickler.
    """
    with path.open("rb") as file:
        return _PlainUnpickler(file).load()
