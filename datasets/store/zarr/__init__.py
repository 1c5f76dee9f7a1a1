"""The store as Zarr objects (docs/store-spec.md, 3 and 4)."""
