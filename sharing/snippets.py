"""Lines of Python with which a card shows how its store is read; tests run them."""

import json

from latentset.datasets.store.store import Store


def load_with_latentset(store: Store, address: str, row: int) -> str:
    """Five lines that read the sample in a row of the table by our own interface."""
    pixels = store.header.pixels is not None
    take = 'pixels = sample["pixels"]' if pixels else 'y_hat = sample["y_hat"]'
    more = "" if pixels else 'sigma_hat = sample["sigma_hat"]\n'
    return (
        "import latentset\n\n"
        f"store = latentset.open_store({_text(address)})\n"
        f"sample = store.read_sample({row})\n"
        f"{take}  # (height, width, channels)\n{more}"
        f'label = store.samples["label"][{row}].as_py()\n'
    )


def load_with_zarr(store: Store, path: str, row: int) -> str:
    """The same by zarr-python and pyarrow (docs/store-spec.md, 7)."""
    lines = (
        "import numpy as np\n"
        "import pyarrow.parquet as pq\n"
        "import zarr\n\n"
        f'group = zarr.open_group({_text(path)}, mode="r")\n'
        f"sample = pq.read_table({_text(f'{path}/samples.parquet')})"
        f".slice({row}, 1).to_pylist()[0]\n"
        'h, w, first = (sample[name] for name in ("latent_height", "latent_width", "first_row"))\n'
    )
    if store.header.pixels is not None:
        return lines + 'pixels = group["pixels"][first : first + h * w].reshape(h, w, 3)\n'
    return (
        lines + 'y_hat = group["y_hat"][first : first + h * w].reshape(h, w, -1)\n'
        'scale_table = np.array(group.attrs["latentset"]["codec"]["scale_table"], "float32")\n'
        'sigma_hat = scale_table[group["scale_index"][first : first + h * w].reshape(h, w, -1)]\n'
    )


def load_with_hdf5(store: Store, path: str, row: int) -> str:
    """The same by h5py (docs/store-spec.md, 8)."""
    lines = (
        "import json\n\n"
        "import h5py\n"
        "import numpy as np\n\n"
        f'file = h5py.File({_text(path)}, "r")\n'
        'names = "latent_height", "latent_width", "first_row"\n'
        f'h, w, first = (int(file["samples"][name][{row}]) for name in names)\n'
    )
    if store.header.pixels is not None:
        return lines + ('pixels = file["pixels"][:, first : first + h * w].T.reshape(h, w, 3)\n')
    return (
        lines + 'y_hat = file["y_hat"][:, first : first + h * w].T.reshape(h, w, -1)\n'
        'scale_table = np.array(json.loads(file.attrs["latentset"])["codec"]["scale_table"], '
        '"float32")\n'
        'sigma_hat = scale_table[file["scale_index"][:, first : first + h * w].T'
        ".reshape(h, w, -1)]\n"
    )


def _text(value: str) -> str:
    """A text in double quotes, as Python and JSON both write it."""
    return json.dumps(value, ensure_ascii=False)
