"""A core with one line changed, loaded beside the shipped one.

The modules that decide are read anew from their source, with one exact text replaced; those that
only hold data (state, managed, events, effects, messages) are shared, so that a mutant and the
simulated world speak of the same things. An anchor that is gone, or is there twice, is an error: a
mutant that changes nothing would prove nothing.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import failover_agent.core as core_package
from failover_agent.guard import watch
from failover_agent.simulation.product import Product

CORE = Path(core_package.__file__).parent
PACKAGE = core_package.__name__
DATA = frozenset({"policy", "managed", "state", "events", "effects", "messages"})
GUARD = "guard/watch.py"


class AnchorGone(AssertionError):
    """The line that a mutant changes is not where it was: write the mutant anew."""


@dataclass(frozen=True)
class Edit:
    """In `file` of the core, or in guard/watch.py, `old`, which is there once, becomes `new`."""

    file: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """The changed source. Raises AnchorGone."""
        if source.count(self.old) != 1:
            raise AnchorGone(f"{self.file}: {source.count(self.old)} times, not once:\n{self.old}")
        return source.replace(self.old, self.new)


def load(edits: Sequence[Edit], *, checked: bool) -> Product:
    """The mutant. Unless `checked`, its invariants are switched off: the world must notice."""
    sources = _bent(edits)
    guard = sources.pop(GUARD, None)
    modules = _decide(sources)
    return Product(
        begin=modules["startup"].begin,
        step=modules["machine"].step,
        next_deadline=modules["machine"].next_deadline,
        plan=modules["plan"].plan,
        check=modules["invariants"].check if checked else _no_check,
        save=modules["plan"].Save,
        leases=modules["leases"],
        voter=modules["voter"],
        ballot=modules["ballot"],
        register=modules["register"],
        watch=watch if guard is None else _standalone(guard),
    )


def load_modules(edits: Sequence[Edit]) -> dict[str, ModuleType]:
    """The modules of the mutant that decide, by their full names."""
    return {f"{PACKAGE}.{name}": module for name, module in _decide(_bent(edits)).items()}


def _bent(edits: Sequence[Edit]) -> dict[str, str]:
    """The sources of the files that are edited, each with all its edits."""
    sources: dict[str, str] = {}
    for edit in edits:
        assert Path(edit.file).stem not in DATA, "data modules are shared"
        folder = CORE.parent if edit.file == GUARD else CORE
        source = sources.get(edit.file) or (folder / edit.file).read_text()
        sources[edit.file] = edit.apply(source)
    return sources


def _decide(sources: Mapping[str, str]) -> dict[str, ModuleType]:
    """All modules that decide, read anew, by name; the given sources in the place of theirs."""
    codes = {
        f"{PACKAGE}.{Path(file).stem}": compile(source, f"<mutant of {file}>", "exec")
        for file, source in sources.items()
    }
    with _forgotten(), _served(codes):
        return {name: importlib.import_module(f"{PACKAGE}.{name}") for name in _logic()}


def _standalone(source: str) -> ModuleType:
    """The guard stands on its own: nothing that decides imports it."""
    module = ModuleType("mutant_of_watch")
    exec(compile(source, f"<mutant of {GUARD}>", "exec"), module.__dict__)
    return module


def _no_check(*_: Any) -> None:
    pass


def _logic() -> list[str]:
    return [file.stem for file in CORE.glob("*.py") if file.stem not in DATA | {"__init__"}]


@contextmanager
def _forgotten() -> Iterator[None]:
    """Python has never imported what decides; afterwards everything is as it was."""
    names = _logic()
    modules = {name: sys.modules.pop(f"{PACKAGE}.{name}", None) for name in names}
    attributes = {name: core_package.__dict__.pop(name, None) for name in names}
    try:
        yield
    finally:
        for name in names:
            _put_back(sys.modules, f"{PACKAGE}.{name}", modules[name])
            _put_back(core_package.__dict__, name, attributes[name])


def _put_back(where: dict[str, Any], key: str, value: Any) -> None:
    where.pop(key, None)
    if value is not None:
        where[key] = value


@contextmanager
def _served(codes: Mapping[str, CodeType]) -> Iterator[None]:
    """Whoever imports one of these modules gets this code."""
    finder = _Finder(codes)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    def __init__(self, codes: Mapping[str, CodeType]) -> None:
        self._codes = codes

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        code = self._codes.get(fullname)
        return None if code is None else spec_from_loader(fullname, _Loader(code))


class _Loader(Loader):
    def __init__(self, code: CodeType) -> None:
        self._code = code

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)  # the one place where a mutant comes to life
