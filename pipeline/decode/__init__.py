"""The decode job: a store of latents -> a store of pixels (docs/decoding.md).

``job`` runs it, ``shard`` is one task, ``quality`` measures decoded images against images.
Plans, records, workers, locks and finishing are those of the encode job.
"""
