"""Defines the prepared model: a float graph with the quantizers that a recipe asks for."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from photomask.chip.arithmetic import direction_of_halves
from photomask.chip.graph import Node
from photomask.chip.graph.module_keys import module_key
from photomask.chip.graph.operations import Input, Normalize
from photomask.chip.placement import Placement
from photomask.chip.prepared_layer import PreparedLayer
from photomask.chip.prepared_table import table_of
from photomask.chip.quantized_computation import compute_norm, compute_quantized
from photomask.chip.quantizers import Quantizer
from photomask.chip.sharing import is_table, share_weights, tables_of_one_scale
from photomask.chip.standing import Effect, Standing
from photomask.chip.sum_limits import update_sum_limits
from photomask.chip.target import Target
from photomask.chip.weight_masks import WeightMasks
from photomask.errors import DataError, PruningError, UsageError
from photomask.report import Shown, Table


class PreparedModel(Shown, nn.Module):
    """A float graph whose activations (edges) and weights have quantizers.

    A call computes with quantized values and straight-through gradients. The results are those of
    the integer program, except for the rounding of the program's rescaling multipliers. After
    `align_to_target`, in float64 and in evaluation mode, the results are exactly those of the
    target's program.

    Attributes:
        graph: the simplified float graph; its constants stay those of the model.
        recipe: the recipe that the model was prepared with.
        states: by name of an input that carries state, the index of the output that updates it.
        sites: the places where quantizers stand, in the order of computation.
        standing: what was done to the model, and whether its scales still fit its weights.
        weights: a copy of every constant tensor of the graph, as parameters. A tensor that several
            nodes read is one parameter.
        masks: the masks of pruned weights, which are 0 in every use and in every later step.
        batch_norms: by layer, the batch norms that training keeps beside it; others are folded.
    """

    def __init__(self, placement: Placement):
        """Takes over the quantizers of a placement, and copies the constants of its graph."""
        super().__init__()
        graph, resolved = placement.survey.graph, placement.quantizers
        self.graph = graph
        self.recipe = placement.recipe
        self.states = dict(placement.survey.states)
        self.sites = placement.survey.sites
        self.standing = Standing()
        self.weights = nn.ParameterDict(
            {
                module_key(name): nn.Parameter(tensor.clone())
                for name, tensor in graph.constants.items()
            }
        )
        self._owner = dict(placement.survey.owners)
        self.masks = WeightMasks()
        self.batch_norms = nn.ModuleDict()
        found = {name: pair.weight for name, pair in resolved.items() if pair.weight is not None}
        self._weight_owner, quantizers = share_weights(graph, found)
        self.weight_quantizers = nn.ModuleDict({module_key(n): q for n, q in quantizers.items()})
        self.activation_quantizers = nn.ModuleDict(
            {module_key(name): pair.activation for name, pair in resolved.items()}
        )
        # A weight that is also the table of an embedding cannot be rescaled in place, because the
        # embedding would change. The layer multiplies the weight by these factors instead.
        self.column_factors = nn.Module()
        for node in graph.nodes:
            if "weight" in node.constants and is_table(graph, node.constants["weight"]):
                columns = graph.constants_of(node)["weight"].shape[1]
                self.column_factors.register_buffer(module_key(node.name), torch.ones(columns))
        for table, owner in tables_of_one_scale(self.graph, resolved).items():
            self.share_scale(table, owner)

    @property
    def target(self) -> Target | None:
        """The target that `align_to_target` aligned the scales to, or None."""
        return self.standing.target

    @target.setter
    def target(self, target: Target | None) -> None:
        self.standing.align(self, target)

    @property
    def device(self) -> torch.device:
        """The device of the quantizers and the weights."""
        return next(iter(self.state_dict().values())).device

    def used_quantizers(self) -> dict[str, Quantizer]:
        """Returns the quantizers in use, by a description of the tensor that each quantizes."""
        found: dict[str, Quantizer] = {}
        for node in self.graph.nodes:
            if node.operation.decides_scale:
                owner = self.scale_owner(node.name)
                found[f"output of {owner!r}"] = self.activation_quantizer(owner)
            if "weight" in node.constants:
                found[f"weight of {node.name!r}"] = self.weight_quantizer(node.name)
        return found

    def constants_of(self, node: Node) -> dict[str, Tensor]:
        """Returns a node's constant tensors by role, with column factors and batch norm folded."""
        constants = {role: self._held(name) for role, name in node.constants.items()}
        factor = self._column_factor(node)
        if factor is not None:
            weight = constants["weight"]
            constants["weight"] = weight * factor.reshape(-1, *(1,) * (weight.ndim - 2))
        norm = self._batch_norm(node)
        return constants if norm is None else norm.fold(constants)

    def _held(self, name: str) -> Tensor:
        """Returns a constant by its name, a masked parameter or a view of one."""
        view, key = self.graph.views.get(name), self._key(name)
        tensor = self.masks.apply_to(key, self.weights[key])
        return tensor if view is None else view.of(tensor)

    def _key(self, name: str) -> str:
        """Returns the key of the parameter that a constant is, or is a view of."""
        return module_key(self.graph.tensor_of(name))

    def parameter_of(self, node: Node) -> nn.Parameter:
        """Returns the parameter behind a layer's weight, without its mask and its norm."""
        return self.weights[self._key(node.constants["weight"])]

    def mask_of(self, node: Node) -> Tensor | None:
        """Returns the mask of a layer's weight, False where it is pruned, or None without one."""
        return self.masks.of(self._key(node.constants["weight"]))

    def set_mask(self, node: Node, mask: Tensor) -> None:
        """Prunes the weights of a layer where a mask is False, in place.

        The scales are undecided afterwards, so `calibrate` has to follow, except within `train`.

        Args:
            node: a layer whose weight no node uses as a table or transposed.
            mask: bool, in the shape of the weight.

        Raises:
            OrderError: the weights are rounded already.
            PruningError: the mask does not fit the weight.
        """
        parameter = self.parameter_of(node)
        if mask.dtype != torch.bool or mask.shape != parameter.shape:
            raise PruningError(
                f"the mask of {node.name!r} is {str(mask.dtype).removeprefix('torch.')} "
                f"{list(mask.shape)}; its weight needs bool {list(parameter.shape)}"
            )
        with self.standing.call("set_mask", Effect.REWRITES, self), torch.no_grad():
            self.masks.put(self._key(node.constants["weight"]), mask, parameter.device)

    def pruned_layers(self) -> list[tuple[Node, Tensor]]:
        """Returns the layers that have masks, each weight once, with the masks."""
        found = [
            (node, self.mask_of(node))
            for node in self.graph.nodes
            if "weight" in node.constants and self._weight_owner[node.name] == node.name
        ]
        return [(node, mask) for node, mask in found if mask is not None]

    def _column_factor(self, node: Node) -> Tensor | None:
        return getattr(self.column_factors, module_key(node.name), None)

    def has_own_factors(self, node: Node) -> bool:
        """Tells whether a layer's columns can be scaled while the tied table stays as it is."""
        return self._column_factor(node) is not None

    def scale_columns(self, node: Node, scale: Tensor) -> None:
        """Multiplies the columns of a layer's weight; a table of the same tensor stays as it is.

        Args:
            node: a layer with a weight.
            scale: one factor for each input channel, [inputs].

        Raises:
            OrderError: the weights are rounded already.
            UsageError: a batch norm is kept beside the layer.
        """
        factor = self._column_factor(node)
        if factor is None:
            weight = self.constants_of(node)["weight"]
            columns = scale.reshape(-1, *(1,) * (weight.ndim - 2))
            self.set_constant(node.name, "weight", weight * columns)
            return
        with self.standing.call("scale_columns", Effect.REWRITES, self):
            factor.mul_(scale)

    def places_of(self, node: Node, role: str) -> tuple[tuple[Node, str], ...]:
        """Returns the other uses of a constant's parameter, as pairs of node and role."""
        uses = self.graph.uses[self.graph.tensor_of(node.constants[role])]
        return tuple(use for use in uses if (use[0].name, use[1]) != (node.name, role))

    def can_round(self, node: Node) -> bool:
        """Tells whether a layer's weight can be rounded to codes for all nodes that share it.

        It cannot where the same tensor is also a table or a transposed weight, whose scales differ.
        """
        name = node.constants["weight"]
        return all(
            role == "weight" and other.constants[role] == name
            for other, role in self.places_of(node, "weight")
        )

    def _batch_norm(self, node: Node) -> Any:
        norms, key = self.batch_norms, module_key(node.name)
        return norms[key] if key in norms else None  # noqa: SIM401 - a ModuleDict has no `get`

    def set_constant(self, node: str, role: str, value: Tensor) -> None:
        """Overwrites a constant of a node in place; the float graph keeps its own values.

        Nodes that share the parameter get the new values too. The scales are undecided afterwards,
        so `calibrate` has to follow.

        Raises:
            OrderError: the weights are rounded already.
            UsageError: the shape differs, or a batch norm is kept beside the layer.
        """
        if module_key(node) in self.batch_norms:
            raise UsageError(
                f"a batch norm is kept beside {node!r}: call fold_batch_norms(prepared) first"
            )
        name = self.graph.by_name[node].constants[role]
        view, key = self.graph.views.get(name), self._key(name)
        held = self.weights[key] if view is None else view.of(self.weights[key])
        if held.shape != value.shape:
            raise UsageError(
                f"the {role} of {node!r} has shape {list(held.shape)}, got {list(value.shape)}"
            )
        factor = self._column_factor(self.graph.by_name[node]) if role == "weight" else None
        if factor is not None:
            value = value / factor.reshape(-1, *(1,) * (value.ndim - 2))
        with self.standing.call("set_constant", Effect.REWRITES, self), torch.no_grad():
            held.copy_(value)
            if (mask := self.masks.of(key)) is not None:
                self.weights[key].mul_(mask)

    def keep_norm(self, node: str, norm: nn.Module) -> None:
        """Keeps a batch norm beside a layer."""
        self.batch_norms[module_key(node)] = norm

    def drop_norm(self, node: Node, factor: Tensor) -> None:
        """Removes a layer's batch norm, and records the factor, [outputs], that folding it gave."""
        del self.batch_norms[module_key(node.name)]
        factors = {self.graph.tensor_of(node.constants["weight"]): factor.abs()}
        self.graph = replace(self.graph, norm_factors={**self.graph.norm_factors, **factors})

    def demand_folded(self) -> None:
        """Refuses a model whose batch norms are not folded into the weights.

        Raises:
            UsageError: batch norms are kept beside layers.
        """
        if self.batch_norms:
            raise UsageError(
                f"the model keeps {len(self.batch_norms)} batch norms beside their layers, and the "
                "layers' weights change with them: call fold_batch_norms(prepared) first"
            )

    def scale_owner(self, edge: str) -> str:
        """Returns the node whose quantizer gives an edge its scale."""
        return self._owner[edge]

    def share_scale(self, edge: str, owner: str) -> None:
        """Gives an edge, and all edges that had its scale, the scale of another node.

        The scales are undecided afterwards, so `calibrate` has to follow.

        Raises:
            OrderError: the weights are rounded already.
        """
        with self.standing.call("share_scale", Effect.REWRITES, self):
            old = self._owner[edge]
            for name, current in self._owner.items():
                if current == old:
                    self._owner[name] = owner

    def share_with(self, other: "PreparedModel") -> None:
        """Takes over another model's weights and quantizers, which the two models then share.

        Args:
            other: a model with the same constants and the same nodes that decide scales.
        """
        for name in {self.scale_owner(node.name) for node in self.graph.nodes}:
            if self.graph.by_name[name].operation.decides_scale:
                self.share_scale(name, other.scale_owner(name))
        self.weights, self.batch_norms = other.weights, other.batch_norms
        self.column_factors, self.masks = other.column_factors, other.masks
        self.weight_quantizers = other.weight_quantizers
        self.activation_quantizers = other.activation_quantizers
        self.standing = other.standing

    def activation_quantizer(self, edge: str) -> Quantizer:
        """Returns the quantizer that gives an edge its scale."""
        return cast(Quantizer, self.activation_quantizers[module_key(self._owner[edge])])

    def weight_quantizer(self, node: str) -> Quantizer:
        """Returns the quantizer of a node's weight, which all nodes with that weight share."""
        return cast(Quantizer, self.weight_quantizers[module_key(self._weight_owner[node])])

    def weight_owner(self, node: str) -> str:
        """Returns the first node that uses a node's weight; its quantizer serves them all."""
        return self._weight_owner[node]

    def observe(self, inputs: Sequence[Tensor]) -> None:
        """Computes in float with the current weights; each quantizer observes its edge's values."""
        for node, value in self.graph.run(inputs, self.constants_of):
            if node.operation.decides_scale or node.operation.makes_values:
                try:
                    self.activation_quantizer(node.name).observe(value)
                except DataError as error:
                    raise DataError(f"output of {node.name!r} ({node.source}): {error}") from error

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs, computed with quantized weights and activations."""
        if self.training:
            update_sum_limits(self)
        found: dict[str, Tensor] = {}
        values: dict[str, Tensor] = dict(zip(self.graph.inputs, inputs, strict=True))
        for node in self.graph.nodes:
            if not isinstance(node.operation, Input):
                operands = [values[name] for name in node.inputs]
                values[node.name] = self.compute(node, operands)
            values[node.name] = self.settle(node, values[node.name])
            if node.name in self.graph.outputs:
                found[node.name] = values[node.name]
        return tuple(found[name] for name in self.graph.outputs)

    def compute(
        self, node: Node, inputs: Sequence[Tensor], constants: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Returns a node's output, computed with quantized weights and not yet quantized itself.

        Args:
            node: a node of the graph.
            inputs: the values of the edges that the node reads.
            constants: the result of `quantized_constants_of(node)`; None computes it.
        """
        norm = self._batch_norm(node)
        constants = self.quantized_constants_of(node) if constants is None else constants
        if norm is not None and norm.is_live:
            return norm(node, inputs, constants)
        operation, target = node.operation, self.target
        if isinstance(operation, Normalize) and target is not None and not self.training:
            step = self.activation_quantizer(node.inputs[0]).scale.detach().double().min()
            return compute_norm(node, operation, inputs[0], step, constants, target)
        return compute_quantized(node, inputs, constants)

    def quantized_constants_of(self, node: Node) -> dict[str, Tensor]:
        """Returns a node's constant tensors by role, with a quantized weight.

        The bias is rounded to a multiple of the real value of one unit of the accumulator.
        """
        if "weight" not in node.constants:
            return self.constants_of(node)
        layer, norm = self.layer(node), self._batch_norm(node)
        constants = {**layer.constants, "weight": layer.quantized_weight}
        if (norm is None or not norm.is_live) and layer.has_static_scales:
            constants["bias"] = layer.rounded_bias
        return constants

    def layer(self, node: Node) -> PreparedLayer:
        """Returns the constants and quantizers of a node with a weight, as they are now."""
        norm, unit = self._batch_norm(node), None
        constants = self.constants_of(node)
        if norm is not None and norm.scales_move:
            unit = norm.factor().abs().reshape(-1, *(1,) * (constants["weight"].ndim - 1))
        return PreparedLayer(
            node=node,
            owner=self._weight_owner[node.name],
            quantizer=self.weight_quantizer(node.name),
            input=self.activation_quantizer(node.inputs[0]),
            output=self.activation_quantizer(node.name),
            constants=constants,
            norm_unit=unit,
        )

    def layers(self) -> Iterator[PreparedLayer]:
        """Yields the layers with weights in the order of computation, each read when it is due."""
        return (self.layer(node) for node in self.graph.nodes if "weight" in node.constants)

    def settle(self, node: Node, value: Tensor) -> Tensor:
        """Returns the quantized output of a node, or the output itself where it was only moved."""
        if not node.operation.is_quantized:
            return value
        quantizer = self.activation_quantizer(node.name)
        exact = value.dtype == torch.float64 and not self.training
        if exact and self.target is not None and not isinstance(node.operation, Input):
            value = value + quantizer.scale_for(value) * direction_of_halves(
                value, self.target.rounding
            )
        return quantizer(value)

    def shown(self) -> Table:
        """Returns a table of the quantizers and, once they are fitted, of their scales."""
        return table_of(self)
