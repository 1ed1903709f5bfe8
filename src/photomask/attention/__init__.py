"""Sparse prefill for vision-language models, by a plan that was decided from data."""
