"""A tuned model as one serialized program of JAX's: from pixels to scores, image tower, class weights and head in it.

Source: jax.export (StableHLO with JAX's promise to read it for six months and more).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float

from craft_jax.export.classifier import Classifier, scores
from craft_jax.precision import in_32_bits

PLATFORMS = ("cpu", "cuda", "tpu")


@in_32_bits
def program(
    image_features: Callable[[Float[Array, "N size size 3"]], Float[Array, "N p"]],
    classifier: Classifier,
    image_size: int,
) -> bytearray:
    """The program, serialized: pixels [N, size, size, 3], float32 from 0 to 1, to scores [N, C], for any N.

    Args:
      image_features: normalised, pure.
      classifier: on them.
      image_size: side of the square images.
    """

    def classify(pixels: Array) -> Array:
        return scores(classifier, image_features(pixels))

    (images,) = export.symbolic_shape("N")
    like = jax.ShapeDtypeStruct((images, image_size, image_size, 3), jnp.float32)
    serialized: bytearray = export.export(jax.jit(classify), platforms=PLATFORMS)(like).serialize()
    return serialized
