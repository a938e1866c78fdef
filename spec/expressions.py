"""The restricted grammar in which a cell's equations are written (SPEC.md, 3.2).

    expression = term {("+" | "-") term}
    term       = factor {("*" | "/" | "@") factor}
    factor     = integer | name | name "." gate | "-" factor | function "(" expression {"," expression} ")"
                 | "(" expression ")"

It is a subset of Python's own expression grammar, so Python's parser reads it; everything outside
the subset is refused. Numbers are integers, so that an expression is exact over numbers of any kind.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from .errors import SpecError

Compiled = Callable[[Mapping[str, Any], Mapping[str, Callable[..., Any]]], Any]
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
        nodes = list(_walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # a null byte; nesting without end
        raise SpecError(f"expression {text!r}: not an expression of the spec's grammar (SPEC.md, 3.2)") from error
    for node in nodes:
        if not _allowed(node):
            raise SpecError(
                f"expression {text!r}: {type(node).__name__} is outside the grammar; expected + - * / @, "
                "names, integers and calls of functions (SPEC.md, 3.2)"
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


@cache
def compiled(tree: ast.expr) -> Compiled:
    """The expression as a function of the values by name and the functions by name.

    It uses the operators of whatever numbers or arrays it is given.
    """
    match tree:
        case ast.BinOp(left=left, op=op, right=right):
            operation, first, second = _OPERATORS[type(op)], compiled(left), compiled(right)
            return lambda values, functions: operation(first(values, functions), second(values, functions))
        case ast.UnaryOp(operand=operand):
            inner = compiled(operand)
            return lambda values, functions: -inner(values, functions)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            parts = [compiled(argument) for argument in arguments]
            return lambda values, functions: functions[name](*[part(values, functions) for part in parts])
        case ast.Attribute():
            dotted = _dotted(tree)
            return lambda values, functions: values[dotted]
        case ast.Name(id=name):
            return lambda values, functions: values[name]
        case ast.Constant(value=value):
            return lambda values, functions: value
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
            return isinstance(value, int) and not isinstance(value, bool)
    return False
