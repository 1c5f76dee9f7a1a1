"""A store for other people: its card, publishing and pulling (docs/sharing.md)."""
