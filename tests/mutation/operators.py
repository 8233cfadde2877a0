"""What may stand in the place of a node: small changes that a wrong program could have.

Left alone are assertions (they say what cannot happen, so no test can see them go), annotations, docstrings, and
whatever is said in the text of an error.
"""

import ast
import copy
from collections.abc import Iterator

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
"""Each to its boundary, where it has one, and to its negation."""

_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_CALLS = {"max": "min", "min": "max", "any": "all", "all": "any", "sorted": "list"}
_OTHER_CODE = "E_INTERNAL"
"""No rule refuses with it."""

Change = tuple[str, ast.AST]
"""(what is said of it, what stands there instead)"""


def changes(node: ast.AST) -> Iterator[Change]:
    """Everything that may stand in the place of this node."""
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp():
            yield from _connectives(node)
        case ast.UnaryOp(op=ast.Not()):
            yield _instead(node, node.operand)
        case ast.UnaryOp(op=ast.USub()) if not isinstance(node.operand, ast.Constant):
            yield _instead(node, node.operand)
        case ast.BinOp():
            yield from _arithmetic(node)
        case ast.Constant():
            yield from _constants(node)
        case ast.Call():
            yield from _calls(node)
        case ast.Attribute(value=ast.Name(id="Code")) if node.attr != _OTHER_CODE:
            yield _instead(node, ast.Attribute(node.value, _OTHER_CODE, node.ctx))
        case ast.If() | ast.While() | ast.IfExp():
            yield from _conditions(node)
        case ast.comprehension():
            yield from _filters(node)
        case ast.stmt():
            yield from _statements(node)


def short(node: ast.AST) -> str:
    """The first line of it as source, without its end if it is long."""
    text = " ".join(ast.unparse(node).split("\n")[0].split())
    return text if len(text) <= 72 else text[:69] + "..."


def _instead(node: ast.AST, other: ast.AST) -> Change:
    before, after = ast.unparse(node), ast.unparse(other)
    while len(before) > 72 and before[:20] == after[:20]:
        before, after = before[10:], after[10:]  # what differs must be seen
    return f"{_cut(before)} -> {_cut(after)}", other


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 72 else text[:69] + "..."


def _comparisons(node: ast.Compare) -> Iterator[Change]:
    for place, operator in enumerate(node.ops):
        for other in _COMPARISONS[type(operator)]:
            operators = [*node.ops[:place], other(), *node.ops[place + 1 :]]
            yield _instead(node, ast.Compare(node.left, operators, node.comparators))


def _connectives(node: ast.BoolOp) -> Iterator[Change]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    word = "and -> or" if isinstance(node.op, ast.And) else "or -> and"
    yield f"{word} in {short(node)}", ast.BoolOp(other, node.values)
    for place, operand in enumerate(node.values):
        rest = [*node.values[:place], *node.values[place + 1 :]]
        left = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        yield f"drop {_cut(ast.unparse(operand))} of {short(node)}", left


def _arithmetic(node: ast.BinOp) -> Iterator[Change]:
    other = _ARITHMETIC.get(type(node.op))
    if other is not None:
        yield _instead(node, ast.BinOp(node.left, other(), node.right))


def _constants(node: ast.Constant) -> Iterator[Change]:
    match node.value:
        case bool():
            yield _instead(node, ast.Constant(not node.value))
        case int():
            yield _instead(node, ast.Constant(node.value + 1))
            yield _instead(node, ast.Constant(node.value - 1))
        case str():
            yield _instead(node, ast.Constant(node.value + "?"))
        case bytes():
            yield _instead(node, ast.Constant(node.value + b"?"))


def _calls(node: ast.Call) -> Iterator[Change]:
    if isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        other = _CALLS[node.func.id]
        keywords = [] if other == "list" else node.keywords
        yield _instead(node, ast.Call(ast.Name(other, ast.Load()), node.args, keywords))


def _conditions(node: ast.If | ast.While | ast.IfExp) -> Iterator[Change]:
    if not _is_negated_elsewhere(node.test):
        turned = copy.copy(node)
        turned.test = ast.UnaryOp(ast.Not(), node.test)
        yield f"if not: {short(node)}", turned


def _filters(node: ast.comprehension) -> Iterator[Change]:
    for place, test in enumerate(node.ifs):
        without = copy.copy(node)
        without.ifs = [*node.ifs[:place], *node.ifs[place + 1 :]]
        yield f"drop if {_cut(ast.unparse(test))}", without


def _is_negated_elsewhere(test: ast.expr) -> bool:
    return (isinstance(test, ast.Compare) and len(test.ops) == 1) or (
        isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    )


def _statements(node: ast.stmt) -> Iterator[Change]:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_never"))) | ast.Expr(value=ast.Constant()):
            return
        case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Break() | ast.Delete():
            yield f"drop {short(node)}", ast.Pass()
        case ast.Assign() if not any(isinstance(target, ast.Name) for target in _targets(node)):
            yield f"drop {short(node)}", ast.Pass()
        case ast.Return(value=None):
            yield "drop return", ast.Pass()
        case ast.Return() if not (isinstance(node.value, ast.Constant) and not node.value.value):
            yield f"{short(node)} -> return None", ast.Return(ast.Constant(None))
    match node:
        case ast.AugAssign() if type(node.op) in _ARITHMETIC:
            yield _instead(node, ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value))
        case ast.Continue():
            yield "continue -> break", ast.Break()
        case ast.Break():
            yield "break -> continue", ast.Continue()


def _targets(node: ast.Assign) -> Iterator[ast.expr]:
    for target in node.targets:
        yield from target.elts if isinstance(target, ast.Tuple) else [target]
