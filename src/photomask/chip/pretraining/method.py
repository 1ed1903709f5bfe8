"""Defines a method of pre-training: a loss of the embeddings of two views."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Method(ABC):
    """A loss of the embeddings of two views of the same samples.

    A method of your own is a subclass that overrides `loss`. Its `repr` should name its numbers, as
    that of a dataclass does, because a checkpoint can only be resumed with the method it was
    written by.

    Attributes:
        host: another encoder that learns beside the small one, or None.
    """

    host: nn.Module | None = None

    @abstractmethod
    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns the loss, [], of the embeddings of two views, float32 [samples, dimensions].

        Row `b` of both is of the same sample. A dimension without variance over the samples may
        give NaN, which ends the training with an error.
        """

    def total(self, own: Sequence[Tensor], hosted: Sequence[Tensor]) -> Tensor:
        """Returns the loss of all branches, [].

        Args:
            own: the embeddings of the two views by the encoder that is wanted.
            hosted: those by the host, or none without a host.
        """
        return self.loss(*own)
