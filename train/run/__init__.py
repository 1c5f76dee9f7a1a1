"""Runs a recipe: training, evaluation, checkpoints, export."""
