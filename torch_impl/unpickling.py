"""Pickles as torch writes them, read as data: what a pickle names is never imported, made or called.

Of the objects that a checkpoint may hold besides tensors, names and numbers, a record stays that does nothing. A
function of Python, torch or NumPy that makes no data is refused by name.
"""

import pickletools
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..spec.errors import FileError
from .records import ORDERED_DICT, Global, Held, Storage, Tensor

MAXIMUM_STEPS = 4_000_000  # opcodes; a tensor takes forty, an entry of a vocabulary three
MAXIMUM_AXES = 64
KEYS = (str, int, float, type(None))  # of dicts; a tuple may take for ever to hash
KNOWN = {*sys.stdlib_module_names, "__builtin__", "copy_reg", "commands", "numpy", "torch"}  # names of Python 2 too
DATA_MODULES = {
    "argparse", "array", "collections", "copy_reg", "copyreg", "datetime", "decimal", "enum", "fractions", "functools",
    "logging", "pathlib", "random", "re", "typing", "uuid", "zoneinfo",
}  # fmt: skip
DATA = {
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in (
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set",
        "slice", "str", "tuple",
    )),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "_codecs.encode", "types.SimpleNamespace", "numpy.dtype", "numpy.ndarray",
    "torch.device", "torch.serialization._get_layout",
}  # fmt: skip


def unpickled(data: bytes) -> Any:
    """What a pickle stands for: dicts, lists, tuples, texts, numbers, and `records`.

    Raises:
        FileError: damaged, of unknown opcodes, too long, or with a call of a function that makes no data.
    """
    machine = _Machine()
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step == MAXIMUM_STEPS:
                raise FileError(f"its pickle takes more than {MAXIMUM_STEPS:,} steps")
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        return machine.stack.pop()
    except FileError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        raise FileError(f"its pickle is damaged: {error}") from error


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under each mark
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in LITERALS:
            self.stack.append(argument)
        elif opcode in MAKERS:
            self.stack.append(MAKERS[opcode]())
        elif opcode in PUTS:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif opcode in GETS:
            self.stack.append(self.memo[argument])
        elif opcode in ACTIONS:
            ACTIONS[opcode](self, argument)
        else:
            raise FileError(f"its pickle has the opcode {opcode}, which torch does not write")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def taken(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) < count:
            raise ValueError("nothing left on the stack")
        del self.stack[-count:]
        return items

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.above_mark()

    def name(self, argument: str | None) -> None:
        module, name = self.taken(2) if argument is None else argument.split(" ", 1)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        self.stack.append(Global(module, name))

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Held):  # of somebody's own class of lists no items are kept
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        self.stack[-1].update(_pairs(items))

    def build(self, _: Any) -> None:
        (state,) = self.taken(1)
        if isinstance(self.stack[-1], Held):
            self.stack[-1].state = state

    def call(self, _: Any) -> None:
        function, arguments = self.taken(2)
        self.push(_called(function, arguments))

    def make(self, count: int) -> None:
        kind = _text(self.taken(count)[0])
        self.push(Tensor(None, 0, (), (), "packed") if kind == PACKED else Held(kind))

    def call_above_mark(self, argument: str | None) -> None:
        """A call as the oldest protocols write it."""
        function, *arguments = self.above_mark() if argument is None else (
            Global(*argument.split(" ", 1)), *self.above_mark()
        )  # fmt: skip
        self.push(_called(function, arguments))

    def storage(self, _: Any) -> None:
        word, kind, key, _device, count = self.taken(1)[0]
        if word != "storage" or not isinstance(key, str) or type(count) is not int:
            raise ValueError("a storage without a key or a size")
        self.stack.append(Storage(key, _text(kind).rpartition(".")[2], count))


def _text(value: Any) -> str:
    """The name that a record holds; the text of anything else may be endless."""
    if not isinstance(value, Global):
        raise ValueError(f"expected a name, got {type(value).__name__}")
    return str(value)


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return _hashed(zip(items[::2], items[1::2], strict=True))


def _hashed(pairs: Any) -> list[tuple[Any, Any]]:
    return [(key, value) for key, value in pairs if isinstance(key, KEYS)]


def _called(function: Any, arguments: Any) -> Any:
    name = _text(function)
    if name in REBUILDERS:
        return REBUILDERS[name](*arguments)
    first = name.partition(".")[0]
    if first in KNOWN and first not in DATA_MODULES and name not in DATA:
        raise FileError(f"its pickle calls {name}, which is no tensor")
    return Held(name)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > MAXIMUM_AXES:
        raise ValueError("a tensor without a storage, a shape or strides")
    if not all(type(size) is int and 0 <= size < 2**63 for size in (offset, *shape, *strides)):
        raise ValueError("a tensor with an offset, a shape or strides that are no sizes")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _tensor_of_dtype(*arguments: Any) -> Tensor:
    return replace(_tensor(*arguments), dtype=_text(arguments[6]).removeprefix("torch."))


def _tensor_of_type(function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    if _text(function) == TYPED:
        raise ValueError("a tensor that is rebuilt of itself")
    return _called(function, arguments)


def _other_tensor(dtype: str) -> Callable[..., Tensor]:
    return lambda *_: Tensor(None, 0, (), (), dtype)


PACKED = "torch.ScriptObject"  # what a quantized layer keeps its weights in
TYPED = "torch._tensor._rebuild_from_type_v2"
REBUILDERS: dict[str, Callable[..., Any]] = {
    ORDERED_DICT: lambda pairs=(): Held(ORDERED_DICT, _hashed(pairs)),
    "torch.Size": lambda sizes=(): sizes,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    TYPED: _tensor_of_type,
    "torch._utils._rebuild_qtensor": _other_tensor("quantized"),
    "torch._utils._rebuild_sparse_tensor": _other_tensor("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _other_tensor("sparse"),
    "torch._utils._rebuild_nested_tensor": _other_tensor("nested"),
    "torch._utils._rebuild_wrapper_subclass": _other_tensor("wrapped"),
    "torch._utils._rebuild_meta_tensor_no_storage": _other_tensor("meta"),
    "torch._utils._rebuild_device_tensor_from_numpy": _other_tensor("numpy"),
}
LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list,
}  # fmt: skip
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}
ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.above_mark().clear(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.above_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.taken(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.taken(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.taken(3))),
    "LIST": lambda machine, _: machine.push(machine.above_mark()),
    "DICT": lambda machine, _: machine.push(dict(_pairs(machine.above_mark()))),
    "FROZENSET": lambda machine, _: machine.push(machine.above_mark()),
    "APPEND": lambda machine, _: machine.extend(machine.taken(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.above_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.above_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.taken(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.above_mark()),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "NEWOBJ": lambda machine, _: machine.make(2),
    "NEWOBJ_EX": lambda machine, _: machine.make(3),
    "INST": _Machine.call_above_mark,
    "OBJ": _Machine.call_above_mark,
    "BINPERSID": _Machine.storage,
}
