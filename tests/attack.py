"""Attacks are shown twice: they work with their check switched off, and are refused with it on.

    @pytest.mark.attack("T40")
    def test_nobody_registers_a_foreign_key(world: World, without: Without) -> None:
        with without(directory.register_identity, "operation.key != call.author"):
            assert register(world) == Code.OK        # the attack works without the check
        assert register(World()) == Code.E_ROLE      # and is refused with it

A check is named by its function and by the beginning of the statement, or by the whole condition, that makes the
decision, as the source says it. The function runs as it is written but for that one decision. The fixture demands that
the check exists exactly once, that inside the block something passed only because it was off, and that after the
block it refused: a test in which another rule does the refusing, or in which nothing would have been refused, fails.
"""

import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any, NamedTuple

_FUTURES = sum(
    getattr(__future__, name).compiler_flag for name in __future__.all_feature_names if name != "nested_scopes"
)


class Check(NamedTuple):
    """A decision in the production code: `without(*check)` switches it off."""

    function: Callable[..., Any]
    decision: str
    """`raise Refused(Code.E_POP)`, `if tip < floor.journal.height`, `_check_terms(`, `return`, or a whole condition."""


class Switch:
    """Stands in the place of one decision."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_off = False
        self.passed = 0
        """What went through only because the check was off."""
        self.refused = 0
        """What the check refused after it was on again."""

    def passes(self) -> bool:
        """Called where the check would refuse: whether it lets that pass."""
        if self.is_off:
            self.passed += 1
        else:
            self.refused += 1
        return self.is_off


class Without:
    """Switches off checks for one test, and remembers whether each one mattered."""

    def __init__(self) -> None:
        self._switches: dict[tuple[FunctionType, str], Switch] = {}
        self._genuine: dict[FunctionType, CodeType] = {}
        self._setups = 0
        self._has_failed = False

    @contextmanager
    def __call__(self, function: Callable[..., Any], decision: str) -> Iterator[None]:
        """Inside the block this one decision refuses nothing."""
        self._has_failed = True
        switch = self._switch(function, decision)
        switch.is_off, switch.passed = True, 0
        try:
            yield
        finally:
            switch.is_off = False
        assert switch.passed, f"nothing depends on {switch.name}: without it nothing more went through"
        self._has_failed = False
        switch.refused = 0

    @contextmanager
    def setup(self, precaution: str) -> Iterator[None]:
        """Inside the block a victim stands that was set up without this precaution, which is no code of ours."""
        assert precaution
        yield
        self._setups += 1

    def finish(self) -> None:
        """Put everything back; assert that the test showed an attack, and what refused it."""
        for function, code in self._genuine.items():
            function.__code__ = code
        for (function, _), switch in self._switches.items():
            del function.__globals__[_variable(switch)]
        if self._has_failed:
            return  # the test itself has said what
        assert self._switches or self._setups, "an attack test must show the attack without its check"
        for switch in self._switches.values():
            assert switch.refused, f"{switch.name} refused nothing after it was on again"

    def _switch(self, function: Callable[..., Any], decision: str) -> Switch:
        plain = inspect.unwrap(function)
        plain = getattr(plain, "__func__", plain)
        assert isinstance(plain, FunctionType), f"{function} is not written in Python"
        switch = self._switches.get((plain, decision))
        if switch is None:
            switch = Switch(f"{plain.__module__}.{plain.__qualname__}: {decision}")
            self._genuine.setdefault(plain, plain.__code__)
            self._switches[plain, decision] = switch
            plain.__globals__[_variable(switch)] = switch
            mine = {text: kept for (owner, text), kept in self._switches.items() if owner is plain}
            plain.__code__ = _with_switches(plain, self._genuine[plain], mine)
        return switch


def _variable(switch: Switch) -> str:
    return f"_switch_{id(switch)}"


def _with_switches(function: FunctionType, genuine: CodeType, switches: dict[str, Switch]) -> CodeType:
    """The function's code with each named decision behind its switch."""
    assert not genuine.co_freevars, f"{function.__qualname__} is a closure"
    tree = ast.parse(textwrap.dedent(inspect.getsource(genuine)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    definition.decorator_list = []
    for decision, switch in switches.items():
        placer = _Placer(decision, _variable(switch))
        tree = placer.visit(tree)
        assert placer.found == 1, f"{switch.name} stands there {placer.found} times, not once"
    ast.increment_lineno(ast.fix_missing_locations(tree), genuine.co_firstlineno - 1)
    flags = genuine.co_flags & _FUTURES
    module = compile(tree, genuine.co_filename, "exec", flags=flags, dont_inherit=True)
    (code,) = [it for it in module.co_consts if isinstance(it, CodeType) and it.co_name == genuine.co_name]
    return code.replace(co_qualname=genuine.co_qualname)


class _Placer(ast.NodeTransformer):
    """Puts a switch where a decision is made; a decision that lies inside another one is found as well."""

    def __init__(self, decision: str, variable: str) -> None:
        self.found = 0
        self._decision = _spelled(decision)
        self._asks = ast.parse(f"{variable}.passes()", mode="eval").body

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return self._unless(node, ast.Constant(True)) if self._begins(node) else node

    def visit_If(self, node: ast.If) -> ast.AST:
        if self._begins(node):
            assert not node.orelse, "a check with an else is two decisions"
            node.test = ast.BoolOp(ast.And(), [node.test, self._refuses()])
            return node
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if self._begins(node):
            again = ast.If(self._refuses(), [ast.Raise()], [])
            handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [again])
            return ast.Try([node], [handler], [], [])
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return self._unless(node, ast.UnaryOp(ast.Not(), node.test)) if self._begins(node) else node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if node.value is not None and self._begins(node):
            node.value = self._or_passes(node.value)
            return node
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        is_and = isinstance(node.op, ast.And)
        for place, operand in enumerate(node.values):
            if self._is(operand):
                alone = ast.BoolOp(ast.And(), [operand, self._refuses()])
                node.values[place] = self._or_passes(operand) if is_and else alone
                return node
        return self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        if self._is(node.test):
            node.test = self._or_passes(node.test)
            return node
        return self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        for place, condition in enumerate(node.ifs):
            if self._is(condition):
                node.ifs[place] = self._or_passes(condition)
                return node
        return self.generic_visit(node)

    def _begins(self, node: ast.stmt) -> bool:
        return self._note(_spelled(ast.unparse(node)).startswith(self._decision))

    def _is(self, node: ast.expr) -> bool:
        return self._note(_spelled(ast.unparse(node)) == self._decision)

    def _note(self, is_found: bool) -> bool:
        self.found += is_found
        return is_found

    def _refuses(self) -> ast.expr:
        return ast.UnaryOp(ast.Not(), self._asks)

    def _or_passes(self, condition: ast.expr) -> ast.expr:
        return ast.BoolOp(ast.Or(), [condition, self._asks])

    def _unless(self, node: ast.stmt, fails: ast.expr) -> ast.stmt:
        return ast.If(ast.BoolOp(ast.And(), [fails, self._refuses()]), [node], [])


def _spelled(text: str) -> str:
    """Without the freedom of quotes."""
    return text.replace('"', "'")
