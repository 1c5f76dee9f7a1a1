"""Latents to classes: networks that read a store's latents, and their training (PyTorch).

Never imports TensorFlow: what the two halves share is the store (docs/store-spec.md), nothing else.
"""
