"""Reproduces the paper.

``experiments`` lists its experiments and makes their recipes from ``table3_settings`` and
recipes/experiments.toml; ``published`` has its numbers; ``recipes`` finds a recipe by name;
``sweep`` plans the runs of a table, ``sweep_run`` trains them; ``network_cost`` measures networks;
``report`` writes the tables and figures.
"""
