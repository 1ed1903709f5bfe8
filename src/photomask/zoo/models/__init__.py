"""The architectures of the zoo, written with plain PyTorch modules."""

from photomask.zoo.models.mobilenet_v1 import MobileNetV1, mobilenet_v1
from photomask.zoo.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from photomask.zoo.models.resnet import ResNet, resnet20
from photomask.zoo.models.vision_transformer import VisionTransformer, vision_transformer

__all__ = [
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "VisionTransformer",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet20",
    "vision_transformer",
]
