"""Fake tensors that remember what an operation gave: blocks are alike, so that most operations are run again and again.

torch's fake mode remembers as well, but needs a tenth of a millisecond to find out; here an operation costs a fifth of
that. What is remembered is what torch's own mode answered the first time: sizes, strides, dtype, and whose storage it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

CPU: Final = torch.device("cpu")
META: Final = torch.device("meta")
UNKNOWN: Final = object()
"""There is no answer yet."""
NAMESPACES: Final = frozenset({"aten", "prims", "fsdp", "torch_attn", "bitsandbytes"})
UNSURE: Final = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view)
"""Operations whose answer is not a matter of their arguments' shapes, or that change a tensor's shape."""
PLAIN: Final = frozenset(
    (bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None))
)
ORDINARY: Final = "axoc_ordinary"
"""An attribute of tensors that were looked at."""


class Unhashable(Exception):
    """An argument that no key can stand for."""


class Output(NamedTuple):
    """How to make one tensor of an answer."""

    given: int | None
    """It is this one of the tensors that were passed."""
    owner: int | None = None
    """It is a view into the storage of this one."""
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    dtype: torch.dtype | None = None


class Answer(NamedTuple):
    outputs: tuple[Output | None, ...]
    several: bool
    """It is a tuple of them, or a list."""


class RememberingMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """A FakeTensorMode of CPU tensors; only quicker."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.answers: dict[Any, Answer | None] = {}
        """By operation and arguments. None: not to be answered from memory."""
        self.answered: Answer | None = None
        """What was answered last, until someone takes it: the same object for the same operation on the same shapes."""
        self.attributes: dict[str, Any] = {}
        """Of any fake tensor of this mode."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper that says so takes time

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors: list[FakeTensor] = []
        try:
            key = whole_key(func, args, kwargs, tensors)
        except Unhashable:
            return super().__torch_dispatch__(func, types, args, kwargs)
        if answer := self.answers.get(key):
            return self._made(answer, tensors)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if key not in self.answers:
            self.answers[key] = described(result, tensors) if repeats(func) else None
        return result

    def remembered(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The answer to an operation that was run before, or UNKNOWN: for another mode, which is spared the dispatcher."""
        tensors: list[FakeTensor] = []
        try:
            answer = self.answers.get(whole_key(func, args, kwargs, tensors))
        except Unhashable:
            return UNKNOWN
        self.answered = answer
        return self._made(answer, tensors) if answer else UNKNOWN

    def made(self, size: Any, stride: Any, dtype: torch.dtype) -> FakeTensor:
        """New memory: what torch.empty_strided answers, for another mode."""
        with torch._C._DisableTorchDispatch():
            made: FakeTensor = self._fake(torch.empty_strided(size, stride, dtype=dtype, device=META))
        return made

    def _made(self, answer: Answer, tensors: Sequence[FakeTensor]) -> Any:
        with torch._C._DisableTorchDispatch():
            made = [None if output is None else self._tensor(output, tensors) for output in answer.outputs]
        return tuple(made) if answer.several else made[0]

    def _tensor(self, output: Output, tensors: Sequence[FakeTensor]) -> Any:
        given, owner, shape, stride, offset, dtype = output
        if given is not None:
            return tensors[given]
        if owner is None:
            return self._fake(torch.empty_strided(shape, stride, dtype=dtype, device=META))
        made = torch.empty(0, dtype=dtype, device=META)
        made.set_(tensors[owner].untyped_storage(), offset, shape, stride)
        return self._fake(made)

    def _fake(self, made: torch.Tensor) -> Any:
        """FakeTensor(self, made, CPU), without its looking at what was passed."""
        if not self.attributes:
            self.attributes = vars(FakeTensor(self, made, CPU)) | {ORDINARY: True}
        fake = torch.Tensor._make_subclass(FakeTensor, made, dispatch_device=True, device_for_backend_keys=CPU)
        torch._C._set_throw_on_mutable_data_ptr(fake)
        fake.__dict__.update(self.attributes)
        return fake


def whole_key(func: Any, args: Any, kwargs: Any, tensors: list[FakeTensor]) -> tuple[Any, ...]:
    """Stands for an operation and what it is given. Raises Unhashable."""
    places: dict[int, int] = {}
    given = key_of(args, tensors, places)
    named = key_of([part for item in kwargs.items() for part in item], tensors, places) if kwargs else None
    return (func, torch.get_default_dtype(), given, named)


def key_of(values: Iterable[Any], tensors: list[FakeTensor], places: dict[int, int]) -> tuple[Any, ...]:
    """Stands for arguments; the tensors among them are gathered in ``tensors``. Raises Unhashable."""
    found: list[Any] = []
    for value in values:
        kind = type(value)
        if kind is FakeTensor:
            found.append(tensor_key(value, tensors, places))
        elif kind in PLAIN:
            found += (kind, value)  # 1, 1.0 and True are equal, and give other dtypes
        elif isinstance(value, (list, tuple)):
            found.append(key_of(value, tensors, places))
        else:
            raise Unhashable
    return tuple(found)


def tensor_key(value: FakeTensor, tensors: list[FakeTensor], places: dict[int, int]) -> tuple[Any, ...]:
    """Tensors that are passed twice are told from two that are alike, by the first place of each."""
    if ORDINARY not in value.__dict__ and not ordinary(value):
        raise Unhashable
    first = places.setdefault(id(value), len(tensors))
    tensors.append(value)
    return (value.dtype, value.shape, value.stride(), value.storage_offset(), first)


def ordinary(value: FakeTensor) -> bool:
    """Nothing about it matters but what a key holds."""
    strided = value.layout == torch.strided and not value.is_complex()
    found = strided and value.constant is None and value.fake_device == CPU
    if found:
        value.__dict__[ORDINARY] = True
    return found


def repeats(func: Any) -> bool:
    """Whether the same shapes always give the same answer."""
    known = func.namespace in NAMESPACES and "set_" not in func.name()
    return known and not any(tag in func.tags for tag in UNSURE)


def described(result: Any, tensors: Sequence[FakeTensor]) -> Answer | None:
    """How to make ``result`` again, or None where it is more than tensors, or tensors that share new memory."""
    several = isinstance(result, (list, tuple))
    values = list(result) if several else [result]
    if not all(v is None or (isinstance(v, FakeTensor) and ordinary(v)) for v in values):
        return None
    outputs = tuple(None if v is None else output_of(v, tensors) for v in values)
    new = [v for v, o in zip(values, outputs, strict=True) if o is not None and o.given is None and o.owner is None]
    storages = {v.untyped_storage()._cdata for v in new}
    whole = all(v.storage_offset() == 0 and not v.requires_grad for v in new)
    return Answer(outputs, several) if whole and len(storages) == len(new) else None


def output_of(value: FakeTensor, tensors: Sequence[FakeTensor]) -> Output:
    given = next((i for i, tensor in enumerate(tensors) if tensor is value), None)
    if given is not None:
        return Output(given)
    storage = value.untyped_storage()._cdata
    owner = next((i for i, tensor in enumerate(tensors) if tensor.untyped_storage()._cdata == storage), None)
    return Output(None, owner, tuple(value.shape), value.stride(), int(value.storage_offset()), value.dtype)
