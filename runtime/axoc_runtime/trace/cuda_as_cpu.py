"""Everything in which a CPU under fake tensors does otherwise than a GPU, undone: one named substitution each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode_temporarily

from axoc_runtime.trace import varlen
from axoc_runtime.trace.attention import RULES as ATTENTION_RULES
from axoc_runtime.trace.attention import attention
from axoc_runtime.trace.device import LT_WORKSPACE, Device
from axoc_runtime.trace.liveness import Liveness, Rule
from axoc_runtime.trace.patching import replaced
from axoc_runtime.trace.reduction import reductions
from axoc_runtime.trace.remembered import RememberingMode

aten = torch.ops.aten
EMBEDDING_SORTS_ABOVE: Final = 3072
"""Tokens (ATen/native/cuda/Embedding.cu, embedding_dense_backward_cuda)."""


@contextmanager
def as_on_cuda(device: Device, *, padded: bool = False) -> Iterator[Liveness]:
    """A fake world in which tensors live and die as on ``device``. Yields what counts them. ``padded``: batches have rows
    of different lengths, and attention needs a mask."""
    import transformers.integrations.sdpa_attention
    import transformers.trainer_pt_utils  # noqa: F401  what modules make when they are imported must not be counted

    fakes = RememberingMode()
    live = Liveness(rules(device), fakes)
    with ExitStack() as stack:
        stack.enter_context(replaced(torch.nn.functional, "scaled_dot_product_attention", attention(device)))
        stack.enter_context(grouped_queries())
        stack.enter_context(adapters_stay())
        stack.enter_context(varlen.capable(device))
        if not padded:
            stack.enter_context(masks_by_value())
        stack.enter_context(recomputed_alike())
        stack.enter_context(whole_depth())
        # it draws again what lies outside, in a loop that looks at values; the weights' own do not matter
        stack.enter_context(replaced(torch.nn.init, "_no_grad_trunc_normal_", lambda tensor, *args, **options: tensor))
        stack.enter_context(fakes)
        stack.enter_context(CudaAutocast())
        stack.enter_context(live)
        yield live


@contextmanager
def grouped_queries() -> Iterator[None]:
    """On CUDA transformers lets SDPA share keys and values where there is no mask and heads are at most 256 wide; on
    a machine without CUDA the same test may say no, and repeated keys and values are saved
    (transformers/integrations/sdpa_attention.py, use_gqa_in_sdpa)."""
    from transformers.integrations import sdpa_attention

    def shared(mask: Any, key: Any, value: Any) -> bool:
        return mask is None and bool(key.shape[-1] == value.shape[-1] <= 256)

    with replaced(sdpa_attention, "use_gqa_in_sdpa", shared):
        yield


@contextmanager
def whole_depth() -> Iterator[None]:
    """Decoders with layerdrop (OPT, BART and those made from it) draw a number without dimensions and skip a block below the
    configured share: a fake tensor has no value to compare. A step that skips none needs most."""
    draw = torch.rand

    def drawn(*size: Any, **options: Any) -> Any:
        return 1.0 if size in (([],), ((),)) else draw(*size, **options)

    with replaced(torch, "rand", drawn):
        yield


@contextmanager
def masks_by_value() -> Iterator[None]:
    """transformers leaves out a causal mask when it sees that no row is padded or packed; fake tensors have no values to
    see, so it makes the mask (transformers/masking_utils.py). Here batches are full and not packed: a mask of tokens that a
    decoder makes for itself (OPT, BART) hides none."""
    from transformers import masking_utils

    with (
        replaced(masking_utils, "is_tracing", lambda tensor=None: False),
        replaced(masking_utils, "find_packed_sequence_indices", lambda positions: None),
        replaced(masking_utils, "fast_all", lambda mask: True),
    ):
        yield


@contextmanager
def recomputed_alike() -> Iterator[None]:
    """Autograd's engine does not carry function modes along: what a checkpoint recomputes enters CudaAutocast anew."""
    from transformers import modeling_utils

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), CudaAutocast()

    with replaced(modeling_utils, "checkpoint", partial(modeling_utils.checkpoint, context_fn=contexts)):
        yield


@contextmanager
def adapters_stay() -> Iterator[None]:
    """PEFT moves fresh adapters to their layer's device and dtype, then back to fp32 (peft/tuners/tuners_utils.py,
    _move_adapter_to_device_of_base_layer and cast_adapter_dtype). Module.to swaps storages, which fake tensors refuse;
    here all is on one device, and adapters are born in fp32."""
    with replaced(torch.nn.Module, "to", lambda module, *args, **kwargs: module):
        yield


FP32_ON_CUDA: Final = {
    functional.softmax,
    functional.log_softmax,
    functional.softplus,
    functional.layer_norm,
    functional.group_norm,
    torch.softmax,
    torch.log_softmax,
    torch.layer_norm,
    torch.exp,
    torch.log,
    torch.pow,
    torch.rsqrt,
    torch.reciprocal,
    torch.cumsum,
    torch.prod,
    torch.norm,
    torch.logsumexp,
    torch.Tensor.softmax,
    torch.Tensor.log_softmax,
    torch.Tensor.exp,
    torch.Tensor.log,
    torch.Tensor.pow,
    torch.Tensor.__pow__,
    torch.Tensor.rsqrt,
    torch.Tensor.reciprocal,
    torch.Tensor.cumsum,
    torch.Tensor.prod,
    torch.Tensor.norm,
    torch.Tensor.logsumexp,
}
"""Operations that autocast runs in fp32 on CUDA and leaves alone on the CPU (ATen/autocast_mode.h, AT_FORALL_FP32)."""


SUMS: Final = {torch.sum, torch.Tensor.sum}
"""Those that it asks for a result in fp32, without a copy of what they are given (AT_FORALL_FP32_SET_OPT_DTYPE)."""


class CudaAutocast(TorchFunctionMode):
    """CUDA's autocast lists and its fused dropout, for CPU tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FP32_ON_CUDA and torch.is_autocast_enabled("cpu") and not kwargs.get("dtype"):
            args = tuple(raised(a) for a in args)
        if func in SUMS and torch.is_autocast_enabled("cpu") and not kwargs.get("dtype") and is_half(args[0]):
            return func(*args, **{**kwargs, "dtype": torch.float32})
        if func is functional.dropout:
            return fused_dropout(*args, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def no_model() -> Iterator[None]:
    """Without CudaAutocast, for what is no model's forward or backward: nothing is lowered or dropped there, and it is asked before
    every call of torch."""
    ours = isinstance(_get_current_function_mode(), CudaAutocast)  # type: ignore[no-untyped-call]
    with _pop_mode_temporarily() if ours else nullcontext():
        yield


def raised(value: Any) -> Any:
    return value.float() if is_half(value) else value


def is_half(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)


def fused_dropout(value: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """CUDA saves a mask of one byte (native_dropout); the CPU one of the input's dtype."""
    return torch.native_dropout(value, p, True)[0] if training and p > 0 else value


def sum_of_gradients(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Autograd adds a second gradient into the first one's memory where nobody else holds it, but never where it is a
    tensor subclass, as all are here (torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace)."""
    first = args[0]
    if not (in_backward() and isinstance(args[1], torch.Tensor) and not kwargs and only_one_here(first, args[1])):
        return func(*args, **kwargs)
    aten.add_.Tensor(*args)
    return first


def index_backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The gradient of rows that an index chose is added into zeros, but into a copy of them where a tensor is a subclass or a
    mode is on, as here (torch/csrc/autograd/FunctionsManual.cpp, index_backward)."""
    accumulates = len(args) > 3 and args[3]
    if not (in_backward() and accumulates and not kwargs):
        return mode.run(func, args, kwargs)
    aten.index_put_.default(*args)
    return args[0]


def in_backward() -> bool:
    """True while autograd's engine runs, but for what a checkpoint recomputes."""
    return torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled()


OWN_STORAGE_REFERENCES: Final = 2
"""The tensor's, and that of the Python object which asks."""


def only_one_here(first: Any, second: Any) -> bool:
    storage = first.untyped_storage()
    alone = torch._C._storage_Use_Count(storage._cdata) == OWN_STORAGE_REFERENCES
    alike = first.shape == second.shape and first.dtype == second.dtype
    return alone and alike and storage.nbytes() == first.numel() * first.element_size()


class BlasWorkspaces:
    """cuBLAS gets a workspace for each handle, and each thread has its own: the caller's, and autograd's, which also
    runs what a checkpoint recomputes. They stay (ATen/cuda/CublasHandlePool.cpp, cublas_handle_stream_to_workspace).
    A product with a bias goes to cuBLASLt, which has one of its own (ATen/native/cuda/Blas.cpp, addmm_out_cuda_impl)."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.given: set[tuple[bool, bool]] = set()

    def __call__(self, mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = mode.run(func, args, kwargs)
        self.asked(mode, biased=func in (aten.addmm.default, aten.addmm.out) and args[0].dim() == 1, result=result)
        return result

    def asked(self, mode: Liveness, *, biased: bool, result: torch.Tensor | None = None) -> None:
        """By a product. ``result``: what it made, where that may be new: it comes before the workspace."""
        handle = (biased, torch._C._current_graph_task_id() != -1)
        if handle not in self.given:
            self.given.add(handle)
            if result is not None:
                mode.see(result)
            mode.allocate(LT_WORKSPACE if biased else self.device.blas_workspace_bytes)


def embedding_backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Above 3,072 tokens the gradient's rows are summed in parts (ATen/native/cuda/EmbeddingBackwardKernel.cu):
    fp32 rows, one for each ten tokens and one for each token that may be different."""
    result = mode.run(func, args, kwargs)
    gradient, indices, rows = args[0], args[1], args[2]
    if indices.numel() > EMBEDDING_SORTS_ABOVE:
        mode.see(result)
        mode.scratch((indices.numel() // 10 + min(indices.numel(), rows)) * gradient.shape[-1] * 4)
    return result


def logsumexp(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The scores minus their maxima are a tensor of their own (ATen/native/ReduceOps.cpp, logsumexp_out_impl)."""
    result = mode.run(func, args, kwargs)
    mode.see(result)
    mode.scratch(args[0].nbytes)
    return result


def rules(device: Device) -> dict[Any, Rule]:
    workspaces = BlasWorkspaces(device)
    products = [
        getattr(op, kind) for op in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm) for kind in ("default", "out")
    ]
    lists = {torch.ops.torch_attn._varlen_attn_backward.default: varlen.backward, aten.logsumexp.default: logsumexp}
    lists[torch.ops.axoc.flash_4_backward.default] = varlen.flash_4_backward
    sums = {aten.add.Tensor: sum_of_gradients, aten.embedding_dense_backward.default: embedding_backward}
    sums[aten.index_put.default] = index_backward
    fixed = {**ATTENTION_RULES, **reductions(device), **sums}
    return {**fixed, **lists, **dict.fromkeys(products, workspaces)}
