"""The restricted grammar in which a cell's equations are written (SPEC.md, 3.2).

    expression = term {("+" | "-") term}
    term       = factor {("*" | "/" | "@") factor}
    factor     = number | name | name "." gate | "-" factor | function "(" expression {"," expression} ")"
                 | "(" expression ")"

It is a subset of Python's own expression grammar, so Python's parser reads it; everything outside
the subset is refused. An expression can be evaluated over numbers of any kind.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .errors import SpecError

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.MatMult: operator.matmul,
}


def parse(text: str) -> ast.expr:
    """The tree of an expression.

    Raises:
        SpecError: the text is outside the grammar.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise SpecError(f"expression {text!r}: not an expression of the spec's grammar (SPEC.md, 3.2)") from error
    for node in _walk(tree):
        if not _allowed(node):
            raise SpecError(
                f"expression {text!r}: {type(node).__name__} is outside the grammar; expected + - * / @, "
                "names, numbers and calls of functions (SPEC.md, 3.2)"
            )
    return tree


def names(tree: ast.expr) -> list[str]:
    """The names of values that an expression reads, in order; `p.i` for a gate's slice."""
    found = []
    for node in _walk(tree):
        if isinstance(node, ast.Attribute):
            found.append(_dotted(node))
        elif isinstance(node, ast.Name):
            found.append(node.id)
    return found


def functions(tree: ast.expr) -> list[str]:
    """The names of the functions that an expression calls, in order."""
    return [node.func.id for node in _walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]


def evaluate(tree: ast.expr, values: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """The value of an expression, with the operators of whatever numbers or arrays it is given."""
    match tree:
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](evaluate(left, values, functions), evaluate(right, values, functions))
        case ast.UnaryOp(operand=operand):
            return -evaluate(operand, values, functions)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return functions[name](*(evaluate(argument, values, functions) for argument in arguments))
        case ast.Attribute():
            return values[_dotted(tree)]
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=value):
            return value
    raise SpecError(f"expression node {type(tree).__name__} is outside the grammar (SPEC.md, 3.2)")


def _dotted(node: ast.Attribute) -> str:
    assert isinstance(node.value, ast.Name)
    return f"{node.value.id}.{node.attr}"


def _walk(node: ast.expr) -> Iterator[ast.expr]:
    """Every node in reading order, but not the name inside a call or before a dot."""
    yield node
    match node:
        case ast.BinOp(left=left, right=right):
            yield from _walk(left)
            yield from _walk(right)
        case ast.UnaryOp(operand=operand):
            yield from _walk(operand)
        case ast.Call(args=arguments):
            for argument in arguments:
                yield from _walk(argument)


def _allowed(node: ast.expr) -> bool:
    match node:
        case ast.BinOp(op=op):
            return type(op) in _OPERATORS
        case ast.UnaryOp(op=ast.USub()) | ast.Name():
            return True
        case ast.Call(func=ast.Name(), keywords=[]):
            return True
        case ast.Attribute(value=ast.Name()):
            return True
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool)
    return False
