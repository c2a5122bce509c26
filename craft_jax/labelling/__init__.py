"""Labels of images by a tuned model: of a chunk at a time, and of a collection that many machines share.

`answers` says what is said of an image. `on_ray` labels units (`units`), a shard or a list of files each, which
`reading` opens, and leaves a Parquet file of each (`output`); it needs the extra `ray`.
"""

from craft_jax.labelling.answers import CHUNK, UNSURE, Answer, answers, probabilities

__all__ = [
    "Answer",
    "CHUNK",
    "UNSURE",
    "answers",
    "on_ray",
    "probabilities",
]
