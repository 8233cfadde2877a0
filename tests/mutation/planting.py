"""Puts a mutant's code into the function that everybody calls, for good: the process is thrown away afterwards."""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from tests.attack import Without
from tests.mutation.mutants import Mutant


def function_of(mutant: Mutant) -> FunctionType:
    """The function that a mutant changes, below its decorators; raises LookupError."""
    found: Any = importlib.import_module(f"p2pledger.{mutant.module}")
    for part in mutant.function.split("."):
        found = inspect.getattr_static(found, part)
    return plain(found)


def plain(found: Any) -> FunctionType:
    """What is written in the source, whatever stands around it; raises LookupError."""
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, functools.cached_property):
        found = found.func
    found = inspect.unwrap(getattr(found, "__func__", found))
    if not isinstance(found, FunctionType):
        raise LookupError(f"{found} is no function")
    return found


def plant(mutant: Mutant) -> None:
    """From now on the function does what the mutant says, also in attack tests after their attack."""
    function, code = function_of(mutant), mutant.code()
    function.__code__ = code
    _outlive_attacks(function, code)


def _outlive_attacks(function: FunctionType, code: CodeType) -> None:
    """An attack test runs the function from its source, with one decision off. That is right while it is off.

    Afterwards the mutant must stand the test; and a mutant that changes the very decision is not killed by being
    spelled otherwise.
    """
    switched: WeakKeyDictionary[Without, CodeType] = WeakKeyDictionary()
    """By test."""
    genuine = Without.__call__

    @contextmanager
    def without(self: Without, target: Callable[..., Any], decision: str) -> Iterator[None]:
        if plain(target) is not function:
            with genuine(self, target, decision):
                yield
            return
        if self in switched:
            function.__code__ = switched[self]
        with genuine(self, target, decision):
            switched[self] = function.__code__
            yield
        for (owner, _), switch in self._switches.items():
            if owner is function:
                switch.refused = 1
        if not any(switch.is_off for (owner, _), switch in self._switches.items() if owner is function):
            function.__code__ = code

    Without.__call__ = without  # type: ignore[method-assign]
