"""Converts names of nodes to names of submodules, which `torch.nn` restricts."""

from torch import nn

RESERVED = frozenset(dir(nn.ModuleDict())) | frozenset(dir(nn.ParameterDict()))
"""The attributes of the containers themselves, such as `keys`, `values` and `type`."""


def module_key(name: str) -> str:
    """Returns the key of a node, or of one of its tensors, in an `nn.ModuleDict`.

    A key must not contain a dot, and must not be an attribute of the container itself. Dots become
    slashes, and a reserved word gets a trailing slash. Different names get different keys.
    """
    key = name.replace("%", "%25").replace("/", "%2F").replace(".", "/")
    return f"{key}/" if key in RESERVED else key


def node_name(key: str) -> str:
    """Returns the name that `module_key` converted to a key."""
    name = key.removesuffix("/").replace("/", ".")
    return name.replace("%2F", "/").replace("%25", "%")
