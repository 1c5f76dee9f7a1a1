"""The encode job: images -> store (docs/encoding.md).

``encode`` runs it, ``encode_task`` is one task: ``reading`` brings its images, ``encoders`` make
rows of them. ``retry`` tries failed samples again and ``amend`` adds them to the store.
"""
