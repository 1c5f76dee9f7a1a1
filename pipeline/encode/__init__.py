"""The encode job: images -> store (docs/encoding.md).

``plan`` decides what goes where, ``shard`` is one task, ``contents`` what it puts into a store:
latents, or the images themselves. ``record`` is what a task leaves behind, ``cluster`` starts
workers, ``passes`` gives them work, ``job`` runs it all and finishes the store. ``retry`` tries
failed samples again and ``amend`` adds them to the store.
"""
