"""Reads users' data: tensors, arrays, pairs with labels, dictionaries and loaders.

Every function that takes data reads it here, so the same forms are accepted everywhere:

- one tensor or array with the samples at axis 0, for a model with one input;
- a tuple or list with one tensor for each input, in the order of the model's inputs;
- a dictionary, or any other mapping, from the names of the inputs to tensors;
- each of these with labels: as a pair `(inputs, labels)`, as one entry after the last input, or
  under the key `labels` or `label`;
- an iterable of such batches: a list, a `DataLoader`, a generator.

The number of inputs decides how a tuple is read. For a model with one input, a tuple `(a, b)`
inside an iterable is a batch and its labels. A tuple that is given alone is two batches where `b`
has the shape of the input, and otherwise a batch and its labels.

Floating-point data of any width becomes float32, and integers become int64. Nothing else is
converted. Integers never become floating-point inputs, because the factor between the two belongs
to the preprocessing of the model, which is not known here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from photomask.arrays import int64_array, plain_array
from photomask.errors import DataError

Array = Tensor | np.ndarray
Inputs = Array | Sequence[Array] | Mapping[str, Array]
"""Samples of every input: one tensor, a tensor for each input in order, or tensors by name."""
Data = Array | Mapping[str, Any] | Iterable[Any]
"""Inputs, with labels or without, or an iterable of batches of them."""
LABEL_KEYS = ("labels", "label")
"""The keys of labels in a dictionary, unless an input of the model has the same name."""
MOST_UNSIZED_SAMPLES = 1 << 14
"""The most samples that are read from an iterable without a length, which may never end."""


@dataclass(frozen=True)
class InputForm:
    """The data that one input of a model takes.

    Attributes:
        name: the name of the input.
        shape: the shape of one sample, without the batch.
        integers: True where the input takes indices, such as token ids, or masks; False where it
            takes floating-point numbers; None where it takes either.
        device: the device that samples are moved to; None leaves them where they are.
    """

    name: str
    shape: tuple[int, ...]
    integers: bool | None = False
    device: torch.device | None = None


@dataclass(frozen=True)
class Batch:
    """Samples of every input, with their labels.

    Attributes:
        inputs: one tensor for each input, float32, int64 or bool.
        labels: the labels as they were given; None where there are none.
    """

    inputs: list[Tensor]
    labels: Any = None


def read_batches(
    forms: Sequence[InputForm], data: Any, *, what: str, size: int | None = None
) -> Iterator[Batch]:
    """Yields data batch by batch, checked against the inputs of the model.

    Args:
        forms: the forms of the model's inputs, in order.
        data: the data, in one of the forms that this module lists.
        what: the word for the data in messages, such as "calibration data".
        size: the number of samples in a batch where `data` is one large batch; None keeps it whole.
            Batches of an iterable keep their size.

    Raises:
        DataError: a shape, a dtype or the number of inputs is wrong, a value is NaN or infinite, or
            an iterable without a length gives more than `MOST_UNSIZED_SAMPLES` samples.
    """
    whole = as_batch(forms, data, what, inside=False)
    if whole is not None:
        yield from _pieces(_checked(forms, whole, what, 0), size)
        return
    count = 0
    for item in _walked(data, what):
        batch = _checked(forms, as_batch(forms, item, what, inside=True), what, count)
        count += len(batch.inputs[0])
        if count > MOST_UNSIZED_SAMPLES and length_of(data) is None:
            raise DataError(
                f"the {what} has no length and gave more than {MOST_UNSIZED_SAMPLES} samples; cut "
                "it with itertools.islice if it never ends, and give a list otherwise"
            )
        yield batch


def read_samples(forms: Sequence[InputForm], data: Any, *, what: str) -> Batch:
    """Returns all samples as one batch.

    Args:
        forms: the forms of the model's inputs, in order.
        data: the data, in one of the forms that this module lists.
        what: the word for the data in messages.

    Raises:
        DataError: there are no samples, or `read_batches` raises it.
    """
    batches = list(read_batches(forms, data, what=what))
    if not batches:
        raise DataError(f"the {what} holds no samples")
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches]
    found = [as_tensor(value) for value in labels]
    joined = torch.cat([x for x in found if x is not None]) if None not in found else None
    columns = zip(*(batch.inputs for batch in batches), strict=True)
    return Batch([torch.cat(column) for column in columns], joined)


def read_batch(forms: Sequence[InputForm], item: Any, *, what: str) -> Batch:
    """Returns one item of an iterable as a batch, checked against the inputs of the model.

    Raises:
        DataError: the item is no batch, or does not fit the model.
    """
    return _checked(forms, as_batch(forms, item, what, inside=True), what, 0)


@overload
def as_batch(
    forms: Sequence[InputForm], item: object, what: str, *, inside: Literal[True]
) -> Batch: ...


@overload
def as_batch(
    forms: Sequence[InputForm], item: object, what: str, *, inside: bool
) -> Batch | None: ...


def as_batch(forms: Sequence[InputForm], item: object, what: str, *, inside: bool) -> Batch | None:
    """Returns the tensors and labels of one batch without checking shapes, dtypes or values.

    Args:
        forms: the forms of the model's inputs.
        item: the data that was given.
        what: the word for the data in messages.
        inside: True for an item of an iterable, which must be a batch.

    Returns:
        The batch, or None where `item` is an iterable of batches.

    Raises:
        DataError: the item is no batch, or lacks an input.
    """
    count = len(forms)
    if isinstance(item, Mapping):
        return _by_name(forms, item, what)
    if (tensor := as_tensor(item)) is not None:
        if count != 1:
            names = ", ".join(form.name for form in forms)
            raise DataError(
                f"the model has {count} inputs ({names}), but the {what} is one tensor; give a "
                "tuple with one tensor for each input"
            )
        return Batch([tensor])
    if isinstance(item, (tuple, list)):
        found = _of_sequence(forms, item, inside=inside)
        if found is not None or not inside:
            return found
    elif not inside and isinstance(item, Iterable) and not isinstance(item, (str, bytes)):
        return None
    names = ", ".join(form.name for form in forms)
    if hasattr(item, "__getitem__") and not isinstance(item, (str, bytes, list, tuple)):
        raise DataError(
            f"the {what} is a {type(item).__name__}, and its items are no batches; wrap it in a "
            "torch.utils.data.DataLoader"
        )
    raise DataError(
        f"the model has {count} input(s) ({names}), but the {what} holds {_described(item)}; give "
        "one tensor for each input, and the labels, if there are any, after them"
    )


def as_tensor(value: object) -> Tensor | None:
    """Returns a tensor or an array of numbers as a tensor, and None for any other value.

    Raises:
        DataError: a tensor is not dense, or an array holds something other than numbers.
    """
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            raise DataError(
                f"a tensor is sparse, nested or quantized ({value.layout}); give a dense tensor"
            )
        return value.detach()
    if isinstance(value, np.generic) or not hasattr(value, "__array__"):
        return None
    return torch.from_numpy(plain_array(np.asarray(value)))


def raw_pictures(x: Tensor) -> str:
    """Describes data that is not floating point, and says how to convert it."""
    # Booleans have a minimum. Some integer dtypes, such as uint16, have one only after conversion.
    values = x if x.dtype is torch.bool else x.to(torch.float64)
    found = f"{x.dtype}, {values.min():.0f} to {values.max():.0f}" if x.numel() else f"{x.dtype}"
    if x.dtype is not torch.uint8:
        return f"{found}; convert it to floats in the units that the model was trained on"
    return (
        f"{found}, which are the values of pictures before normalization; normalize them as in "
        "training, for example with (x.float() / 255 - mean) / standard_deviation"
    )


def length_of(data: object) -> int | None:
    """Returns the number of items, or None where it is unknown."""
    try:
        return len(data)  # type: ignore[arg-type]
    except TypeError:
        return None


def checked_input(form: InputForm, x: Tensor, what: str, first: int = 0) -> Tensor:
    """Returns the samples of an input as float32, int64 or bool, on the device of the form.

    Args:
        form: the data that the input takes.
        x: the samples at axis 0.
        what: the word for the data in messages.
        first: the index of the first sample, for messages.

    Raises:
        DataError: the shape or the dtype is wrong, there are no samples, a value is NaN or
            infinite, or an integer is beyond int64.
    """
    where = f"{what} for {form.name!r}"
    if x.is_complex():
        raise DataError(f"{where} must be real numbers, got complex ones ({x.dtype})")
    if form.integers and x.is_floating_point():
        raise DataError(
            f"{where} must be integer tensors, which are indices or a mask, got {x.dtype}"
        )
    if form.integers is False and not x.is_floating_point():
        raise DataError(f"{where} must be float tensors, got {raw_pictures(x)}")
    if tuple(x.shape[1:]) != form.shape or not x.ndim or not len(x):
        raise DataError(f"{where} has shape {list(x.shape)}, {_expected(form, x)}")
    if not x.is_floating_point():
        return _placed(form, x if x.dtype is torch.bool else as_int64(x, where))
    values = x.to(torch.float32)
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        sample = int((~finite).nonzero()[0, 0]) + first
        raise DataError(
            f"{where}: sample {sample} holds NaN or infinity, or a number beyond float32; remove "
            "or repair that sample"
        )
    return _placed(form, values)


def _placed(form: InputForm, x: Tensor) -> Tensor:
    """Returns samples on the device of the form."""
    if form.device is None:
        return x
    # The copy need not block: kernels on the same CUDA stream start after it.
    return x.to(form.device, non_blocking=form.device.type == "cuda")


def as_int64(x: Tensor, where: str) -> Tensor:
    """Returns integers as int64, and raises an error rather than let one wrap around.

    Args:
        x: integers of any dtype, or booleans.
        where: a description of the tensor for the message.

    Raises:
        DataError: an integer is beyond int64.
    """
    if x.dtype is not torch.uint64:
        return x.to(torch.int64)
    return torch.from_numpy(int64_array(x.cpu().numpy(), where)).to(x.device)


def _expected(form: InputForm, x: Tensor) -> str:
    """Says which shape was expected, and how a frequent wrong shape is corrected."""
    expected = f"expected [batch, {', '.join(map(str, form.shape))}]"
    if tuple(x.shape) == form.shape:
        return f"{expected}: it is one sample without the axis of the batch, so give x[None]"
    if tuple(x.shape[1:]) != form.shape and sorted(x.shape[1:]) == sorted(form.shape):
        left, order = list(range(1, x.ndim)), [0]
        for size in form.shape:
            axis = next(axis for axis in left if x.shape[axis] == size)
            left.remove(axis)
            order.append(axis)
        return f"{expected}: its axes are in another order, so give x.permute{tuple(order)}"
    return expected


def _of_sequence(forms: Sequence[InputForm], items: Sequence[Any], *, inside: bool) -> Batch | None:
    """Returns a tuple or list as one batch, or None where it is an iterable of batches."""
    count = len(forms)
    tensors = [as_tensor(item) for item in items]
    known = [x for x in tensors if x is not None]
    if len(items) == count and len(known) == count:
        return Batch(known)
    if len(items) == 2 and isinstance(items[0], (tuple, list)) and _is_label(items[1], inside):
        parts = [x for x in map(as_tensor, items[0]) if x is not None]
        return Batch(parts, items[1]) if len(parts) == len(items[0]) == count else None
    if len(items) == 2 and isinstance(items[0], Mapping) and _is_label(items[1], inside):
        return Batch(_by_name(forms, items[0], "data").inputs, items[1])
    if len(items) != count + 1 or None in tensors[:count]:
        return None
    is_batch = count == 1 and not inside and tensors[1] is not None
    if is_batch and tuple(known[1].shape[1:]) == forms[0].shape:
        return None
    return Batch(known[:count], items[count]) if inside or _is_label(items[count], inside) else None


def _is_label(value: object, inside: bool) -> bool:
    """Tells whether the entry after the inputs may be labels rather than another batch."""
    if inside or value is None or as_tensor(value) is not None:
        return True
    return isinstance(value, (tuple, list)) and all(isinstance(x, (int, float)) for x in value)


def _by_name(forms: Sequence[InputForm], given: Mapping[Any, Any], what: str) -> Batch:
    names = [form.name for form in forms]
    keys = [key for key in given if key in names or key not in LABEL_KEYS]
    if missing := [name for name in names if name not in given]:
        raise DataError(
            f"the {what} lacks the input {missing[0]!r}: it has {', '.join(map(str, given))}, and "
            f"the model takes {', '.join(names)}"
        )
    if unknown := [key for key in keys if key not in names]:
        raise DataError(
            f"the {what} has the key {unknown[0]!r}, which is neither an input of the model "
            f"({', '.join(names)}) nor 'labels'; remove it"
        )
    tensors = [as_tensor(given[name]) for name in names]
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is None:
            raise DataError(f"{what} for {name!r} is a {type(given[name]).__name__}, not a tensor")
    labels = next((given[key] for key in LABEL_KEYS if key in given and key not in names), None)
    return Batch([x for x in tensors if x is not None], labels)


def _checked(forms: Sequence[InputForm], batch: Batch, what: str, first: int) -> Batch:
    """Returns a batch after checking that its inputs fit the model."""
    inputs = [
        checked_input(form, x, what, first) for form, x in zip(forms, batch.inputs, strict=True)
    ]
    if len({len(x) for x in inputs}) > 1:
        raise DataError(
            f"the {what} holds {[len(x) for x in inputs]} samples for the inputs in order; give "
            "the same number of samples for each input"
        )
    return Batch(inputs, batch.labels)


def _pieces(batch: Batch, size: int | None) -> Iterator[Batch]:
    """Yields pieces of a batch with at most `size` samples each."""
    count = len(batch.inputs[0])
    labels = as_tensor(batch.labels)
    cut = labels is not None and labels.ndim > 0 and len(labels) == count
    for start in range(0, count, size or count):
        rows = slice(start, start + (size or count))
        beside = labels[rows] if cut and labels is not None and size else batch.labels
        yield Batch([x[rows] for x in batch.inputs], beside)


def _walked(data: Any, what: str) -> Iterator[Any]:
    """Yields the items of an iterable of batches."""
    try:
        yield from data
    except TypeError as error:
        if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
            raise DataError(
                f"the {what} is {_described(data)}; give a tensor, an array or batches of them"
            ) from error
        raise


def _described(item: object) -> str:
    if isinstance(item, (tuple, list)):
        kinds = ", ".join(type(x).__name__ for x in item[:4])
        return f"a {type(item).__name__} of {len(item)} ({kinds}{', …' if len(item) > 4 else ''})"
    return f"a {type(item).__name__}"
