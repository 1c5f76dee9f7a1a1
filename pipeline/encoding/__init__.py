"""The encode job: photographs -> store (docs/encoding.md).

``plan`` decides what goes where, ``shard`` is one task, ``record`` is what a task leaves behind,
``cluster`` starts workers, ``job`` runs it all and finishes the store.
"""
