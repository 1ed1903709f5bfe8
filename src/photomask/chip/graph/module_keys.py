"""Names of nodes as names of submodules, which `torch.nn` restricts."""

from torch import nn

RESERVED = frozenset(dir(nn.ModuleDict())) | frozenset(dir(nn.ParameterDict()))
"""Attributes that the containers have themselves, such as `keys`, `values` and `type`."""


def module_key(name: str) -> str:
    """Returns the key of a node, or of one of its tensors, in an `nn.ModuleDict`.

    A key must hold no dot and must not be an attribute that the container has itself. Dots become
    slashes; a reserved word gets a slash behind it. Different names get different keys.
    """
    key = name.replace("%", "%25").replace("/", "%2F").replace(".", "/")
    return f"{key}/" if key in RESERVED else key


def node_name(key: str) -> str:
    """Returns the name that `module_key` made a key of."""
    name = key.removesuffix("/").replace("/", ".")
    return name.replace("%2F", "/").replace("%25", "%")
