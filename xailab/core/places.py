"""From which place of the picture a number comes: followed through a network's own operations.

What a token stands for is not written in its shape. It is known from what the network does: patches
are cut out of the picture, moved, joined by a class token, added to and normalized. Each of these
operations is repeated on the places (column and row) of the numbers, so that a token's place is
proved and not guessed. Attention mixes all places, so what it gives has none.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from xailab.core.company import trial
from xailab.core.state import frozen

_NEAR = 1e-4  # places closer than this, as a share of the picture's side, are one


class Places(NamedTuple):
    """Where the numbers of a tensor come from.

    Attributes:
        at: complex, of the tensor's shape: column + 1j * row, as shares of the picture's sides;
            NaN where a number has no place of its own (a class token, attention).
        stream: whether they are still the network's stream of vectors, to which its blocks add,
            and not a projection of it (queries, keys, values, what is hidden in an MLP).
    """

    at: Tensor
    stream: bool = True


class Seen(NamedTuple):
    """The output of one module.

    Attributes:
        name: dotted.
        shape: of one row.
        places: where they are known.
        of_picture: whether it is made of the picture at all (a bias of relative positions is not).
    """

    name: str
    shape: tuple[int, ...]
    places: Places | None
    of_picture: bool


def grid(height: int, width: int, *, like: Tensor | None = None) -> Tensor:
    """Return the centers of the cells of a picture, (height, width) complex.

    >>> grid(1, 2)
    tensor([[0.2500+0.5000j, 0.7500+0.5000j]])
    """
    device = None if like is None else like.device
    rows = (torch.arange(height, device=device) + 0.5) / height
    columns = (torch.arange(width, device=device) + 0.5) / width
    return torch.complex(columns.expand(height, -1), rows[:, None].expand(-1, width))


def same_places(one: Tensor, other: Tensor) -> Tensor:
    """Tell of each number whether both have the same place; what has none has not the same."""
    return (one - other).abs() < _NEAR


def followed(model: nn.Module, x: Tensor, *, until: str | None = None) -> list[Seen]:
    """Run one row of pictures and return what is known of every module that gave a tensor.

    Args:
        model: the network.
        x: (N, C, H, W), one row of which is run.
        until: a module behind which nothing is computed.

    Returns:
        In the order in which the modules ended.

    >>> patches = nn.Sequential(nn.Conv2d(1, 3, 2, 2), nn.Flatten(2))
    >>> followed(patches, torch.zeros(1, 1, 2, 4))[-1].places.at[0, 0].real  # of two patches
    tensor([0.2500, 0.7500])
    """
    found: list[Seen] = []
    row = x[:1].detach().clone()
    follower = _Follower()

    def see(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 1 and len(output) == 1:
            of = follower.places(output), follower.is_of_picture(output)
            found.append(Seen(name, tuple(output.shape[1:]), *of))
        if name == until:
            raise _Reached

    with frozen(model), trial(), suppress(_Reached), ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                handle = module.register_forward_hook(partial(see, name))
                stack.callback(handle.remove)
        with torch.inference_mode(False), torch.no_grad():
            row = row.clone()  # the caller's may be one of inference mode, whose views are no views
            follower.know(row, Places(grid(*row.shape[2:], like=row).expand(row.shape)))
            with follower:
                model(row)
    return found


class _Reached(Exception):
    """The module has answered; the rest of the network is not needed."""


class _Follower(TorchDispatchMode):
    """Repeat every operation of PyTorch on the places of its numbers.

    Tensors are known by their memory, since a view may be another object each time; all of them are
    kept, so that no memory is given away again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[Any, ...], Places] = {}
        self._of_picture: set[Any] = set()  # memory that holds what is made of the picture
        self._alive: list[Any] = []

    def know(self, tensor: Tensor, places: Places) -> None:
        self._known[_memory(tensor)] = places
        self._of_picture.add(_memory(tensor)[0])
        self._alive.append(tensor)

    def places(self, tensor: Any) -> Places | None:
        return self._known.get(_memory(tensor)) if isinstance(tensor, Tensor) else None

    def is_of_picture(self, tensor: Tensor) -> bool:
        return _memory(tensor)[0] in self._of_picture

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = op(*args, **kwargs)
        written = [(one, self.places(one)) for one in _written(op, args)]
        given, given_back = _tensors((args, kwargs)), _tensors(answer)
        self._alive += given_back
        if any(self.is_of_picture(one) for one in given):
            changed = [*given_back, *(one for one, _ in written)]
            self._of_picture |= {_memory(one)[0] for one in changed}
        known = [its for one in given if (its := self.places(one)) is not None]
        if known:
            rule = _rule(op)
            self._enter(answer, rule and rule(self, op, args, kwargs, answer, known))
        for one, before in written:
            self._spoil(one, before)
        return answer

    def _enter(self, answer: Any, places: Any) -> None:
        """Enter the places of an answer, or of every part of it; an unknown rule leaves none."""
        answers = answer if isinstance(answer, (list, tuple)) else [answer]
        found = places if isinstance(places, list) else [places]
        for one, its in zip(answers, found, strict=False):
            if isinstance(one, Tensor):
                self._known.pop(_memory(one), None)
                if its is not None:
                    self._known[_memory(one)] = its

    def _spoil(self, tensor: Tensor, before: Places | None) -> None:
        """Take the places from all that shares memory with what was written, unless they stay."""
        now, mine = self.places(tensor), _memory(tensor)
        if before and now and (same_places(before.at, now.at) | before.at.isnan()).all():
            self._known[mine] = before
            return
        for key, its in self._known.items():
            if key[0] == mine[0] and key != mine:
                self._known[key] = Places(_nowhere(its.at), False)


def _tensors(tree: Any) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor)]


def _written(op: Any, args: Any) -> list[Tensor]:
    """Return the tensors that an operation changes in place."""
    if not op._schema.is_mutable:
        return []
    pairs = zip(args, op._schema.arguments, strict=False)
    written = [one for one, its in pairs if its.alias_info is not None and its.alias_info.is_write]
    return [one for one in written if isinstance(one, Tensor)]


def _rule(op: Any) -> Any:
    rule = _RULES.get(op._schema.name.removeprefix("aten::").rstrip("_"))
    return _pointwise if rule is None and torch.Tag.pointwise in op.tags else rule


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout != torch.strided:
        return (id(tensor),)
    storage = tensor.untyped_storage().data_ptr()
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


# ---- rules: what becomes of places ---------------------------------------------------------------

_NOWHERE = complex("nan+nanj")


def _nowhere(tensor: Tensor) -> Tensor:
    return torch.full((), _NOWHERE, dtype=torch.complex64, device=tensor.device).expand(
        tensor.shape
    )


def _moved(
    follower: _Follower, op: Any, args: Any, kwargs: Any, answer: Any, known: Any
) -> Places | list[Places]:
    """Move places as the numbers are moved; what comes from elsewhere (zeros, a token) has none."""

    def at(value: Any) -> Any:
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            return value
        places = follower.places(value)
        return _nowhere(value) if places is None else places.at

    try:
        found = op(*tree_map(at, args), **tree_map(at, kwargs))
    except RuntimeError:  # a view that the places' own order in memory does not allow
        found = at(args[0]).reshape(answer.shape)
    stream = any(one.stream for one in known)
    if isinstance(found, (list, tuple)):
        return [Places(one, stream) for one in found]
    return Places(found, stream)


def _padded(
    follower: _Follower, op: Any, args: Any, kwargs: Any, answer: Any, known: Any
) -> Places:
    return Places(op(known[0].at, args[1], _NOWHERE), known[0].stream)


def _copied(
    follower: _Follower, op: Any, args: Any, kwargs: Any, answer: Any, known: Any
) -> Places:
    """Take the places of what is written there."""
    source = follower.places(args[1])
    if source is None:
        return Places(_nowhere(answer), False)
    return Places(source.at.expand(answer.shape), source.stream)


def _kept(*call: Any) -> Places:
    """Keep places: a norm gives numbers where it found them."""
    *_, known = call
    return known[0]


def _pointwise(
    follower: _Follower, op: Any, args: Any, kwargs: Any, answer: Any, known: Any
) -> Places | None:
    """Join the places of what is added or multiplied: two different ones are none.

    What has no place (attention, a class token) leaves the other's: a block adds to the stream.
    """
    if not isinstance(answer, Tensor):
        return None
    first, *others = [one for one in known if not _lost(one.at)] or known[:1]
    at = first.at.expand(answer.shape)
    for one in others:
        other = one.at.expand(answer.shape)
        both = torch.where(same_places(at, other) | other.isnan(), at, _NOWHERE)
        at = torch.where(at.isnan(), other, both)
    return Places(at, first.stream or any(one.stream for one in others))


def _lost(at: Tensor) -> bool:
    """Tell whether no number has a place; they often are one number at one address."""
    same = all(step == 0 or side == 1 for step, side in zip(at.stride(), at.shape, strict=True))
    return bool((at.flatten()[:1] if same else at).isnan().all())


def _mixed(
    follower: _Follower, op: Any, args: Any, kwargs: Any, answer: Any, known: Any
) -> Places | list[Places]:
    """Leave no places: every number is made of many (attention, a softmax over places)."""
    if isinstance(answer, Tensor):
        return Places(_nowhere(answer), False)
    return [Places(_nowhere(one), False) for one in answer if isinstance(one, Tensor)]


def _projected(
    follower: _Follower, op: Any, args: Any, kwargs: Any, answer: Any, known: Any
) -> Places:
    """Take the center of the neighbors that a matrix joins: the pixels of a patch, four tokens.

    Numbers of one place stay there, but are a projection of the stream. Numbers from all over the
    picture are mixed.
    """
    first, second = (follower.places(one) for one in args[-2:])
    if first is None or second is not None:
        return Places(_nowhere(answer), False)
    center, joins = _center(first.at, 1)
    return Places(center.expand(answer.shape), first.stream and joins)


def _center(at: Tensor, axis: int) -> tuple[Tensor, bool]:
    """Return the center of the places along an axis, if they are neighbors; whether any differ."""
    if at.stride(axis) == 0:
        return at.narrow(axis, 0, 1), False
    wide = [part.amax(axis, True) - part.amin(axis, True) for part in (at.real, at.imag)]
    near = (wide[0] < 0.5) & (wide[1] < 0.5)  # NaN is not
    joins = bool(((wide[0] > _NEAR) | (wide[1] > _NEAR)).any())
    return torch.where(near, at.mean(axis, True), _NOWHERE), joins


def _windowed(
    follower: _Follower, op: Any, args: Any, kwargs: Any, answer: Any, known: Any
) -> Places | None:
    """Lay maps over the whole picture again where a convolution or a pool makes them of maps.

    A margin that was put around them before, as TensorFlow pads, is like a convolution's own.
    """
    maps = answer[0] if isinstance(answer, tuple) else answer
    first = follower.places(args[0])
    name = op._schema.name
    if first is None or maps.ndim != 4 or first.at.ndim != 4:
        return Places(_nowhere(maps), False)
    size = args[1].shape[2:] if "conv" in name else args[1] if "_pool2d" in name else (1, 1)
    center, _ = _center(first.at, 1)  # channels may be neighbors of each other: space to depth
    if not is_grid(_without_margin(center, size if "adaptive" not in name else (1, 1))):
        return Places(_nowhere(maps), False)
    return Places(grid(*maps.shape[2:], like=maps).expand(maps.shape), first.stream)


def _without_margin(at: Tensor, size: Sequence[int]) -> Tensor:
    """Cut rows and columns without places off the edges, fewer than a window is long."""
    for axis in (2, 3):
        inside = (~at[0, 0].isnan()).any(3 - axis).nonzero()[:, 0]
        if len(inside):
            first, last = int(inside[0]), int(inside[-1])
            if max(first, at.shape[axis] - 1 - last) < max(1, size[(axis - 2) % len(size)]):
                at = at.narrow(axis, first, last - first + 1)
    return at


def is_grid(at: Tensor) -> bool:
    """Tell whether these are the places of maps (1, K, h, w) laid over the whole picture."""
    return at.ndim == 4 and bool(same_places(at, grid(*at.shape[2:], like=at)).all())


_NAMES: dict[Callable[..., Any], str] = {
    _moved: "view _unsafe_view reshape _reshape_alias permute transpose t expand slice select "
    "squeeze unsqueeze clone alias detach roll flip unbind split split_with_sizes cat stack "
    "index_select gather index repeat movedim lift_fresh pixel_unshuffle unsafe_split "
    "unsafe_split_with_sizes _conj contiguous narrow unfold",
    _kept: "_to_copy native_layer_norm native_batch_norm native_group_norm native_dropout "
    "_native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update "
    "_fused_rms_norm cudnn_batch_norm miopen_batch_norm",
    _padded: "constant_pad_nd",
    _copied: "copy",
    _pointwise: "hardswish hardsigmoid hardtanh silu gelu mish elu leaky_relu softplus relu6 "
    "_prelu_kernel masked_fill add sub mul div where",
    _mixed: "bmm baddbmm _softmax _log_softmax _scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math "
    "_scaled_dot_product_fused_attention_overrideable _native_multi_head_attention",
    _projected: "mm addmm",
    _windowed: "convolution mkldnn_convolution _convolution max_pool2d_with_indices avg_pool2d "
    "_adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d "
    "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
}  # fmt: skip
_RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}
