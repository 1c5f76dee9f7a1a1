"""The decode job: a store of latents -> a store of pixels (docs/decoding.md).

``decode`` runs it, ``decode_task`` is one task, ``quality`` measures decoded images against images.
"""
