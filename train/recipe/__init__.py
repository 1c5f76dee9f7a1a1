"""What a run does: a recipe, from a file or a name."""
