"""From a complaint of the parser to a sentence that helps: what was found, what was expected, what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from ccd_lightning.command_names import COMMANDS

_PACKAGES = ("data", "backbones", "modules", "callbacks")
_HELP = "`--help` behind the subcommand lists the options, `--trainer.plan.help` or `--data.source.help CLASS` those below one."
_CONFIG = "--config configs/ccd.yaml"
_MOST_NAMES = 16

# What the parser says about the branches of a union beside the one that was meant.
_UNION = "Does not validate against any"
_NOISE = re.compile(
    rf"{_UNION}|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but|^\[?'?NestedArg"
)
_GIVEN = re.compile(r"^\s*Given value: (?P<value>.{1,80})$", re.MULTILINE)
_KEY = re.compile(r'Parser key "(?P<key>[^"]+)":\s*')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']+)':\s*")
_UNKNOWN_OPTION = re.compile(
    r"(?:Group '(?P<group>[^']+)' does not accept option|Subcommand '[^']+' does not accept option|Option) '(?P<option>[^']+)'"
    r"|unrecognized arguments: (?:-*(?P<argument>[^\s=]+))"
)
_UNKNOWN_CLASS = re.compile(
    r"module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'|No module named '(?P<missing>[^']+)'"
    r"|Expected a dot import path string: (?P<word>\S+)"
)
_ABSTRACT = re.compile(r"(?P<path>[\w.]+) is abstract")
_NO_SUBCLASS = re.compile(r"does not correspond to a subclass of (?P<base>\w+)|Not a valid subclass of (?P<other>\w+)")
_REQUIRED = re.compile(r"the following arguments are required: (fit\..*|test\..*|predict\..*|export\..*)")
_UNKNOWN_COMMAND = re.compile(r"invalid choice: '(?P<given>[^']+)' \(choose from (?P<known>[^)]+)\)")


class KindParser(LightningArgumentParser):
    """A parser that says what is wrong in one paragraph; the stock one prints screens of usage first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A mistyped option that happens to begin another one's name would be taken for it.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    @override
    def parse_args(self, args: Any = None, *others: Any, **settings: Any) -> Any:
        """Read arguments; those of a class within another come here as text, in which jsonargparse 4.53 writes null as `None`."""
        if not self.exit_on_error and args is not None:
            args = [arg.removesuffix("None") + "null" if arg.endswith("=None") else arg for arg in args]
        return super().parse_args(args, *others, **settings)

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        raise MisconfigurationException(explain(message, option_names(self))) from ex


class Complaint(NamedTuple):
    """The innermost thing that a parser complains about.

    Attributes:
        key: dotted place in the configuration; empty at the top.
        class_path: class whose arguments are wrong, if it is one.
        reason: what is wrong there.
    """

    key: str
    class_path: str | None
    reason: str


def message_of(error: BaseException) -> str:
    """An error as one paragraph."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full: free some space, then go on with `--ckpt_path last`. What was saved before is whole."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Check that the path exists and that you may read and write there."
    text = str(error)
    if text.startswith("No supported gpu backend"):
        return f"{text.rstrip('!')}: use `--trainer.accelerator auto`."
    if _UNION in text:
        text = read_complaint(text).reason
    return _one_line(text) or type(error).__name__


def explain(message: str, options: Iterable[str]) -> str:
    """What a parser says, without its layers of unions and with the name that was probably meant.

    Args:
        message: the parser's words.
        options: dotted options that the parser knows.

    >>> explain("unrecognized arguments: --trainer.max_epochz 3", ["trainer.max_epochs", "trainer.plan"]).partition(" `--help`")[0]
    'There is no option `trainer.max_epochz`; did you mean `trainer.max_epochs`?'
    """
    complaint = read_complaint(message)
    told = _about_command(complaint.reason) or _about_option(complaint, options) or _about_class(complaint)
    return told or f"{_place(complaint)}{complaint.reason}. {_HELP}"


def read_complaint(message: str) -> Complaint:
    """The innermost complaint of a parser's message, which nests one in the other."""
    keys: list[str] = []
    class_path, reasons = None, []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ").strip()
        if _NOISE.search(text):
            continue
        key = _KEY.match(text)
        if key:
            keys.append(key["key"])
            text = text[key.end() :]
        named = _CLASS.match(text)
        if named:
            class_path, text = named["path"], text[named.end() :]
        if text:
            reasons.append(text.rstrip("."))
    # Types are named as users write them.
    reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", "; ".join(reasons)) or _one_line(message)
    reason = re.sub(r"a typing\.Literal\[([^\]]*)\]", r"one of \1", reason)
    reason = re.sub(r"\ba int\b", "an int", reason)
    given = _GIVEN.search(message)
    if given and reason.startswith("Expected ") and "Got value" not in reason:
        # A union tells the value once, below what each of its branches has to say.
        reason += f". Got value: {given['value']}"
    return Complaint(".".join(keys), class_path, reason)


def option_names(parser: argparse.ArgumentParser) -> set[str]:
    """Dotted options of a parser and of its subcommands."""
    names: set[str] = set()
    for action in parser._actions:
        names |= {name.lstrip("-") for name in action.option_strings if name.startswith("--")} | {action.dest}
        if isinstance(action, argparse._SubParsersAction):
            for inner in (action.choices[name] for name in list(action.choices)):
                names |= option_names(inner)
    return {name for name in names if not name.endswith(("help", "==SUPPRESS==", "+")) and "print_" not in name}


def meant(given: str, known: Iterable[str]) -> str:
    """The end of a sentence about a word that is not known, with the nearest of those that are.

    >>> "There is no `dmi`" + meant("dmi", ["dim", "num_layers"])
    'There is no `dmi`; did you mean `dim`?'
    """
    close = difflib.get_close_matches(given, list(known), 1)
    return f"; did you mean `{close[0]}`?" if close else "."


def _place(complaint: Complaint) -> str:
    return f"`{complaint.key}`: " if complaint.key else ""


def _about_command(reason: str) -> str | None:
    found = _UNKNOWN_COMMAND.search(reason)
    if found:
        known = [*re.findall(r"\w+", found["known"]), *COMMANDS]
        return (
            f"There is no subcommand `{found['given']}`{meant(found['given'], known)} Expected one of {_quoted(known)}."
        )
    if reason.startswith('expected "subcommand"'):
        return (
            f"No subcommand is given: begin with fit, test, predict or export, such as `python train.py fit {_CONFIG}`;"
            " `python train.py --help` lists all."
        )
    required = _REQUIRED.match(reason)
    if required:
        names = [name.partition(".")[2] for name in required[1].split(", ")]
        return f"Nothing says what {_quoted(names)} shall be: name a configuration, such as `{_CONFIG}`."
    return None


def _about_option(complaint: Complaint, options: Iterable[str]) -> str | None:
    found = _UNKNOWN_OPTION.search(complaint.reason)
    if not found:
        return None
    given = found["argument"] or ".".join(part for part in (found["group"], found["option"]) if part)
    if complaint.class_path is None:
        if given.endswith((".yaml", ".yml")):
            return f"{given} stands alone; did you mean `--config {given}`? {_HELP}"
        return f"There is no option `{given}`{meant(given, options)} {_HELP}"
    known = sorted(_options_of(complaint.class_path))
    name = complaint.class_path.rpartition(".")[2]
    # What stands beside a mistyped key of a group are the keys of that group.
    group = given.rpartition(".")[0]
    within = [option.removeprefix(f"{group}.") for option in known if group and option.startswith(f"{group}.")]
    short = list(dict.fromkeys(option.partition(".")[0] for option in within or known))
    owner = f"`{group}`" if within else name
    accepted = f" {owner} accepts {_quoted(short)}." if 0 < len(short) <= _MOST_NAMES else ""
    nearest = meant(given, [*known, "class_path", "init_args"])
    return f"{_place(complaint)}{name} has no option `{given}`{nearest}{accepted} {_HELP}"


def _about_class(complaint: Complaint) -> str | None:
    unknown, base = _UNKNOWN_CLASS.search(complaint.reason), _NO_SUBCLASS.search(complaint.reason)
    if unknown:
        path = complaint.class_path or unknown["missing"] or f"{unknown['module']}.{unknown['name']}"
        wanted = unknown["word"] or path
        return f"{_place(complaint)}there is no class `{wanted}`{_meant_class(wanted)} {_HELP}"
    abstract = _ABSTRACT.search(complaint.reason)
    if abstract:
        missing = _quoted(sorted(getattr(_import(abstract["path"]), "__abstractmethods__", ())))
        return f"{_place(complaint)}the class `{abstract['path']}` does not define {missing}, which it must: write it. {_HELP}"
    if base:
        reason = re.split("[. ;]+Subclass types", complaint.reason)[0]
        return f"{_place(complaint)}{reason}; expected one such as {_kinds_of(base['base'] or base['other'])}. {_HELP}"
    return None


def _options_of(class_path: str) -> set[str]:
    """Options of a class that the parser has imported already."""
    try:
        parser = LightningArgumentParser(exit_on_error=False)
        parser.add_class_arguments(_import(class_path), fail_untyped=False)
    except (ImportError, AttributeError, ValueError, TypeError):
        return set()
    return option_names(parser) - {"config", "c"}


def _import(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _meant_class(wanted: str) -> str:
    paths = [*(path for path, _ in _classes()), *_neighbours(wanted)]
    close = difflib.get_close_matches(wanted, paths, 1)
    if not close:
        by_name = {path.rpartition(".")[2]: path for path in paths}
        close = [by_name[name] for name in difflib.get_close_matches(wanted.rpartition(".")[2], by_name, 1)]
    return f"; did you mean `{close[0]}`?" if close else ": name it as module.Class, from where Python can import it."


def _neighbours(wanted: str) -> list[str]:
    """The classes of the module that the user named, if the parser could import it."""
    home = wanted.rpartition(".")[0]
    found = vars(sys.modules[home]) if home in sys.modules else {}
    return [f"{home}.{name}" for name, value in found.items() if getattr(value, "__module__", None) == home]


def _classes() -> Iterator[tuple[str, type]]:
    """The classes that a configuration may name, by their paths."""
    for package in _PACKAGES:
        module = importlib.import_module(f"ccd_lightning.{package}")
        for name in module.__all__:
            found = getattr(module, name)
            if isinstance(found, type) and not inspect.isabstract(found):
                yield f"{module.__name__}.{name}", found


def _kinds_of(base: str) -> str:
    known = [path for path, found in _classes() if base in {parent.__name__ for parent in found.__mro__}]
    return _quoted(known) or "your own"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _one_line(text: str) -> str:
    return " ".join(text.split())
