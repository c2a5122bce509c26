"""Small collections to label: a folder, Parquet files, a tar file as WebDataset has it."""

import io
import tarfile

import numpy as np
from PIL import Image


def png(number):
    """An image file's bytes, of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def folder(path, numbers):
    """A folder with a sub-folder of images."""
    for number in numbers:
        (path / "inner").mkdir(parents=True, exist_ok=True)
        (path / "inner" / f"{number}.png").write_bytes(png(number))
    return path


def table(path, numbers, *, plain=False):
    """Parquet: Hugging Face's struct of bytes and path, or plain bytes; a column `id`."""
    import pyarrow as pa
    from pyarrow import parquet

    images = [png(number) if plain else {"bytes": png(number), "path": None} for number in numbers]
    parquet.write_table(pa.table({"image": images, "id": [f"id-{number}" for number in numbers]}), path)
    return path


def shard(path, numbers):
    """A tar file with an image, a class and a caption for each key."""
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            for suffix, content in (("png", png(number)), ("cls", b"1"), ("txt", b"a caption")):
                member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path
