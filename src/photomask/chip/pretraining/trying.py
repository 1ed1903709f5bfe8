"""Tries a user's module on some samples, so that what it cannot take is said before training."""

import torch
from torch import Tensor, nn

from photomask.errors import UsageError


def device_of(module: nn.Module, what: str) -> torch.device:
    """Returns the device of a module's parameters.

    Raises:
        UsageError: it has no parameters.
    """
    parameter = next(module.parameters(), None)
    if parameter is None:
        raise UsageError(f"the {what}, a {type(module).__name__}, has no parameters to train")
    return parameter.device


def output_of(module: nn.Module, samples: Tensor, what: str) -> object:
    """Returns what a module makes of some samples in evaluation mode, without a gradient.

    Args:
        module: the module, which stays as it is.
        samples: the samples, [samples, ...].
        what: the word for the module in messages, such as "encoder".

    Raises:
        UsageError: the module has no parameters, or raises an error for the samples.
    """
    training = module.training
    try:
        with torch.no_grad():
            return module.eval()(samples.to(device_of(module, what)))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"the {what} cannot compute with samples of the shape {list(samples.shape[1:])}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    finally:
        module.train(training)


def features_of(module: nn.Module, samples: Tensor, what: str) -> Tensor:
    """Returns the features of some samples, [samples, features].

    Raises:
        UsageError: the module returns something else, or `output_of` raises it.
    """
    found = output_of(module, samples, what)
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point():
        is_tensor = isinstance(found, Tensor)
        shown = f"{found.dtype} {list(found.shape)}" if is_tensor else type(found).__name__
        raise UsageError(
            f"the {what} must return features, floats [samples, features]; found {shown}. Pool "
            "and flatten feature maps; `without_head` leaves out the last layer of a classifier"
        )
    return found
