"""All mutants of a module: found in its source, named by what they change, planted in a copy of its tree.

A name holds no line number: `consensus.tally.Tally.add: len(earlier) >= 2 -> len(earlier) > 2`. It stays the same
until the function itself changes, so an explanation of a survivor lasts as long as it is true.
"""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from tests.mutation.operators import changes, short

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "p2pledger"
FOLDERS = ("consensus", "health")

Step = tuple[str, int | None]
"""Which field of a node, and which item of it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change in one function."""

    module: str
    """Below the package: `consensus.tally`."""
    function: str
    """`Tally.add`"""
    change: str
    place: tuple[Step, ...]
    """From the module's tree to the node."""
    other: ast.AST
    lines: range
    """The simple statement, or the head of the compound one, that it stands in."""

    @property
    def name(self) -> str:
        return f"{self.module}.{self.function}: {self.change}"

    @property
    def where(self) -> str:
        """The function by its full name, under which a survivor is explained."""
        return f"{self.module}.{self.function}"

    @property
    def path(self) -> Path:
        return path_of(self.module)

    def code(self) -> CodeType:
        """The function with this change."""
        tree: ast.AST = ast.parse(self.path.read_text())
        tree = _planted(tree, self.place, self.other)
        return _code_of(compile(ast.fix_missing_locations(tree), str(self.path), "exec", dont_inherit=True), self)


def path_of(module: str) -> Path:
    """Where the source of a module below the package is."""
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def modules() -> list[str]:
    """The modules that have mutants, by name."""
    found = (f"{folder}.{path.stem}" for folder in FOLDERS for path in sorted((PACKAGE / folder).glob("*.py")))
    return [module for module in found if mutants_of(module)]


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module, in the order of its source, each with a name of its own."""
    seen: Counter[str] = Counter()
    found = []
    for mutant in _search(module, ast.parse(path_of(module).read_text())):
        seen[mutant.name] += 1
        number = seen[mutant.name]
        found.append(mutant if number == 1 else _renamed(mutant, f"{mutant.change} ({number})"))
    return found


def _renamed(mutant: Mutant, change: str) -> Mutant:
    return Mutant(mutant.module, mutant.function, change, mutant.place, mutant.other, mutant.lines)


def _search(module: str, tree: ast.Module) -> Iterator[Mutant]:
    for function, place, node in _functions(tree, (), ""):
        for number, statement in enumerate(node.body):
            if _is_docstring(statement):
                continue
            start = (*place, ("body", number))
            for at, found, holder in _nodes(statement, start, statement):
                for change, other in changes(found):
                    text = change if isinstance(found, ast.stmt) else _in_context(change, holder)
                    yield Mutant(module, function, text, at, other, _lines(holder))


def _functions(
    node: ast.AST, place: tuple[Step, ...], prefix: str
) -> Iterator[tuple[str, tuple[Step, ...], ast.FunctionDef | ast.AsyncFunctionDef]]:
    for step, child in _children(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, (*place, step), child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, (*place, step), f"{prefix}{child.name}.")


def _nodes(
    node: ast.AST, place: tuple[Step, ...], holder: ast.stmt
) -> Iterator[tuple[tuple[Step, ...], ast.AST, ast.stmt]]:
    """Each node that may be changed, with the statement that holds it."""
    if isinstance(node, ast.Assert | ast.arguments | ast.JoinedStr):
        return
    holder = node if isinstance(node, ast.stmt) else holder
    yield place, node, holder
    for step, child in _children(node):
        if step[0] in {"annotation", "returns", "decorator_list", "exc", "cause"} and not _is_refusal(child):
            continue
        if _is_docstring(child):
            continue
        yield from _nodes(child, (*place, step), holder)


def _is_refusal(node: ast.AST) -> bool:
    """`Refused(Code.E_ROLE)`: a code is a part of the answer, the text of an error is not."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused"


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _children(node: ast.AST) -> Iterator[tuple[Step, ast.AST]]:
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield (field, None), value
        elif isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield (field, number), item


def _in_context(change: str, holder: ast.stmt) -> str:
    """A change of something short says where it stands."""
    return change if len(change) > 24 else f"{change} in {short(holder)}"


def _lines(statement: ast.stmt) -> range:
    body = getattr(statement, "body", None) or getattr(statement, "cases", None)
    if not body:
        return range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    first = body[0].pattern.lineno if isinstance(body[0], ast.match_case) else body[0].lineno
    return range(statement.lineno, max(first, statement.lineno + 1))


def _planted(tree: ast.AST, place: tuple[Step, ...], other: ast.AST) -> ast.AST:
    node = tree
    for field, number in place[:-1]:
        value = getattr(node, field)
        node = value if number is None else value[number]
    field, number = place[-1]
    if number is None:
        setattr(node, field, copy.deepcopy(other))
    else:
        getattr(node, field)[number] = copy.deepcopy(other)
    return tree


def _code_of(module: CodeType, mutant: Mutant) -> CodeType:
    for constant in module.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_qualname == mutant.function:
                return constant
            if mutant.function.startswith(constant.co_qualname + "."):
                return _code_of(constant, mutant)
    raise LookupError(f"{mutant.path} has no {mutant.function}")
