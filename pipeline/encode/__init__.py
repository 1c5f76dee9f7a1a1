"""The encode job: images -> store (docs/encoding.md).

``encode`` runs it, ``encode_task`` is one task, ``retry`` tries failed samples again.
"""
