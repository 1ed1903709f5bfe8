"""Converted models and tasks for lmms-eval, a harness that scores vision-language models.

`manifests` is the entry point by which lmms-eval finds the models. `write_task` makes a task of a
file of prompts. Neither needs PyTorch or lmms-eval.
"""

from photomask.lmms_eval.registration import manifests
from photomask.lmms_eval.tasks import check_task_name, write_task

__all__ = ["check_task_name", "manifests", "write_task"]
