"""Defines the presets, which are recipes by name, and loads recipes."""

from pathlib import Path
from typing import Unpack

from photomask.chip.default_dtype import float32_by_default
from photomask.chip.recipe.documents import (
    ActivationDocument,
    GroupDocument,
    HeadroomDocument,
    PercentileDocument,
    RecipeDocument,
    RuleDocument,
    WeightDocument,
)
from photomask.chip.recipe.overrides import Overrides, override
from photomask.chip.recipe.rules import Recipe
from photomask.documents import file_of_name, read_text
from photomask.errors import RecipeError

# With 8 bits, min-max is as good as any range for weights. With fewer bits, a channel is more
# accurate when its rarest large weights are clipped.
_WEIGHT_4 = WeightDocument(bits=4, observer="mse")
# Clipping the largest 0.01 % of the activations makes the scale of all others finer. MobileNetV2
# gains 3 dB over min-max by it, and small networks lose nothing.
_COMMON = PercentileDocument(percentile=99.99)
_ACTIVATION_8 = ActivationDocument(observer=_COMMON)
_ACTIVATION_10 = ActivationDocument(bits=10)
_ACTIVATION_12 = ActivationDocument(bits=12)
# Most elements of a softmax over many tokens, and of a GELU, are small compared with the largest,
# so 8 bits leave few codes for them. The same holds for the inputs of these functions; no layer
# multiplies those, so more bits need no wider multiplier. docs/how-to/transformers.md has the
# measurements.
_ENCODER = (
    RuleDocument(match="unmultiplied", activation=_ACTIVATION_12),
    RuleDocument(match="residual", activation=ActivationDocument(bits=16)),
    RuleDocument(match="operator:softmax", activation=_ACTIVATION_12),
    RuleDocument(match="operator:gelu", activation=_ACTIVATION_12),
)
# In language models the first token of a text makes a few elements a thousand times as large as
# all others. docs/how-to/language-models.md has the measurements.
_DECODER = (
    # A gated unit multiplies two such elements, so 8 bits would round all other tokens to 0. Only
    # one of the seven layers of a block reads its output, and 16 bits fit that layer's accumulator.
    # The largest products are so rare that new texts exceed the calibration data up to threefold.
    # Clipping them costs more accuracy than the two bits that the headroom costs.
    RuleDocument(
        match="gated",
        activation=ActivationDocument(bits=16, observer=HeadroomDocument(headroom=4)),
    ),
    RuleDocument(match="unmultiplied", activation=_ACTIVATION_12),
    # Rotated queries and keys are sums, and their matrix product reads copies of them. No weight is
    # multiplied by them, and errors of a score are amplified by the exponential.
    RuleDocument(match="operator:copy", activation=_ACTIVATION_12),
    # In the residual stream the large elements stay in a few channels. Each channel gets a
    # power-of-two factor of its own, because 16 bits with one scale would leave all other channels
    # only a few codes.
    RuleDocument(
        match="norm_inputs",
        activation=ActivationDocument(algorithm="power_of_two_factors", bits=16, largest_factor=8),
    ),
    RuleDocument(match="operator:softmax", activation=_ACTIVATION_12),
)
# The inputs of layers have few bits. Edges that only sums, norms and functions read keep 8 bits,
# because they need no multiplier.
_SUMS_8 = RuleDocument(match="unmultiplied", activation=_ACTIVATION_8)
_LEARNED_SUMS_8 = RuleDocument(
    match="unmultiplied", activation=ActivationDocument(algorithm="lsq_plus")
)

_PRESETS = (
    (
        "Eight bits everywhere; where to start.",
        RecipeDocument(name="w8a8", activation=_ACTIVATION_8),
    ),
    (
        "Eight bits; activations keep the whole range that was measured.",
        RecipeDocument(name="w8a8-minmax"),
    ),
    (
        "Weights of 4 bits, activations of 8.",
        RecipeDocument(name="w4a8", weight=_WEIGHT_4, activation=_ACTIVATION_8),
    ),
    (
        "Weights of 4 bits with a scale for each group of 16 input channels.",
        RecipeDocument(
            name="w4a8-group",
            weight=WeightDocument(bits=4, observer="mse", granularity=GroupDocument(per_group=16)),
            activation=_ACTIVATION_8,
        ),
    ),
    (
        "Weights and activations of 4 bits, for convolutional networks without training.",
        RecipeDocument(
            name="w4a4",
            weight=_WEIGHT_4,
            # With sixteen levels, clipping by MSE biases every sum that follows. On the shipped
            # networks it measured up to 8 percentage points less accuracy than this observer.
            activation=ActivationDocument(bits=4, observer=_COMMON),
            rules=(_SUMS_8,),
            keep=("first", "last"),
        ),
    ),
    (
        "Weights and activations of 4 bits, for vision transformers without training.",
        RecipeDocument(
            name="w4a4-encoder",
            weight=_WEIGHT_4,
            # The outputs of norms and GELUs have longer tails than those of a ReLU. On the shipped
            # vision transformer 99.9 % measured 1.1 dB better than 99.99 %; on convolutional
            # networks it is worse.
            activation=ActivationDocument(bits=4, observer=PercentileDocument(percentile=99.9)),
            rules=(_SUMS_8,),
            keep=("first", "last"),
        ),
    ),
    # To be trained: scales, and offsets of activations, learn with the weights.
    (
        "Weights and activations of 4 bits with learned scales, for `train`.",
        RecipeDocument(
            name="w4a4-lsq",
            weight=WeightDocument(bits=4, algorithm="lsq"),
            activation=ActivationDocument(bits=4, algorithm="lsq_plus"),
            rules=(_LEARNED_SUMS_8,),
            keep=("first", "last"),
        ),
    ),
    (
        "Weights and activations of 2 bits with learned scales, for `train`.",
        RecipeDocument(
            name="w2a2-lsq",
            weight=WeightDocument(bits=2, algorithm="lsq"),
            activation=ActivationDocument(bits=2, algorithm="lsq_plus"),
            rules=(_LEARNED_SUMS_8,),
            keep=("first", "last"),
        ),
    ),
    (
        "Weights of 4 bits by SAWB, activations by PACT, for `train`.",
        RecipeDocument(
            name="w4a4-sawb-pact",
            weight=WeightDocument(bits=4, algorithm="sawb"),
            activation=ActivationDocument(bits=4, algorithm="pact", symmetric=True),
            rules=(_SUMS_8,),
            keep=("first", "last"),
        ),
    ),
    # Transformers: few channels of the residual stream are far larger than all others, and all
    # layers add to it.
    (
        "Eight bits; the residual stream of a transformer has 16.",
        RecipeDocument(
            name="w8a8-residual16",
            rules=(RuleDocument(match="residual", activation=ActivationDocument(bits=16)),),
        ),
    ),
    (
        "Eight bits for transformers whose norms stand before the layers (ViT).",
        RecipeDocument(name="w8a8-encoder", rules=_ENCODER),
    ),
    # Where norms come after the sums, layers read the stream itself, outliers and all.
    (
        "Eight bits for transformers whose norms stand after the sums (BERT).",
        RecipeDocument(
            name="w8a8-bert",
            rules=(*_ENCODER, RuleDocument(match="operator:copy", activation=_ACTIVATION_12)),
        ),
    ),
    (
        "Eight bits for language models, as far as their outliers allow.",
        RecipeDocument(name="w8a8-decoder", rules=_DECODER),
    ),
    # Eight bits keep the perplexity of a small language model, but not its choices.
    (
        "Activations of 10 bits for language models, which keeps their choices.",
        RecipeDocument(name="w8a10-decoder", activation=_ACTIVATION_10, rules=_DECODER),
    ),
    (
        "Weights of 8 bits, activations of 16: close to the float model.",
        RecipeDocument(name="w8a16", activation=ActivationDocument(bits=16)),
    ),
    # For hardware without zero points (Deeploy).
    (
        "Eight bits without zero points, for hardware that has none (Deeploy).",
        RecipeDocument(
            name="w8a8-symmetric", activation=ActivationDocument(symmetric=True, observer=_COMMON)
        ),
    ),
    # For hardware without unsigned activations (TFLite, TOSA).
    (
        "Eight bits without unsigned activations (TFLite, TOSA).",
        RecipeDocument(
            name="w8a8-signed", activation=ActivationDocument(signed=True, observer=_COMMON)
        ),
    ),
    # For hardware that only shifts (MAX78000): no zero points, no unsigned activations.
    (
        "Eight bits with scales that are powers of two, for hardware that only shifts.",
        RecipeDocument(
            name="w8a8-po2",
            weight=WeightDocument(granularity="per_tensor", power_of_two=True, observer="mse"),
            activation=ActivationDocument(
                symmetric=True, signed=True, power_of_two=True, observer="mse"
            ),
        ),
    ),
)
"""What each recipe is for, and the recipe."""

PRESETS: dict[str, RecipeDocument] = {recipe.name: recipe for _, recipe in _PRESETS}
"""Recipes by the name that `load_recipe` takes."""

PURPOSES: dict[str, str] = {recipe.name: purpose for purpose, recipe in _PRESETS}
"""What each recipe is for, in a sentence, by its name."""


@float32_by_default()
def load_recipe(name_or_path: str | Path | Recipe, **overrides: Unpack[Overrides]) -> Recipe:
    """Returns a preset by its name, or reads a recipe from a JSON file; fields may be overridden.

    For example, `load_recipe("w4a4", keep=["first", "re:head.*"], weight={"bits": 6})` returns
    `w4a4` with other patterns in `keep`, and with weights of 6 bits that are otherwise the same.

    Args:
        name_or_path: the name of a preset, the path of a file, or a recipe.
        overrides: the fields of `Recipe` to replace. `weight` and `activation` are quantizers, or
            dictionaries of some of their JSON fields, which are merged with those of the preset or
            file. `rules` is a list of `Rule` objects or of their JSON fields.

    Raises:
        RecipeError: there is no preset and no file of that name, recipes do not have a field, or
            a field cannot have its value.
        DocumentError: the file is not a valid recipe document.
    """
    if isinstance(name_or_path, Recipe):
        return override(name_or_path, None, overrides)
    if str(name_or_path) in PRESETS:
        document = PRESETS[str(name_or_path)]
    else:
        path = file_of_name(name_or_path, "recipe", PRESETS, RecipeError)
        document = RecipeDocument.parse(read_text(path), str(path))
    return override(document.build(), document, overrides)
