"""Runs language models in integers, by chunks of tokens with a cache of integer keys and values."""

from photomask.chip.decoding.cached_model import CachedModel
from photomask.chip.decoding.decoder import Decoder
from photomask.chip.decoding.other_shapes import prepare_like

__all__ = ["CachedModel", "Decoder", "prepare_like"]
