"""Cross-entropy and the two directions of consistency between a black box's predictions and the refined ones.

Shapes: N images, C classes. Every loss is a mean over images in float32. Source: CraFT, section 3 (arXiv 2402.04050).
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(logits: Float[Array, "N C"], labels: Int[Array, " N"]) -> Float[Array, ""]:
    """Mean of -log softmax(logits)[label]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def soft_cross_entropy(
    logits: Float[Array, "N C"], targets: Float[Array, "N C"], mask: Bool[Array, " N"]
) -> Float[Array, ""]:
    """Mean of -sum_c target_c log softmax(logits)_c over the images that the mask keeps."""
    return _mean(optax.losses.softmax_cross_entropy(logits, targets), mask)


def prompt_consistency(logits: Float[Array, "N C"], refined: Float[Array, "N C"]) -> Float[Array, ""]:
    """KL(softmax(refined) || softmax(logits)): draws the prompt's predictions towards the head's."""
    return _kl(refined, logits).mean()


def head_consistency(
    logits: Float[Array, "N C"], refined: Float[Array, "N C"], mask: Bool[Array, " N"] | None = None
) -> Float[Array, ""]:
    """KL(softmax(logits) || softmax(refined)): keeps the head's predictions near the prompt's."""
    return _mean(_kl(logits, refined), mask)


def accuracy(logits: Float[Array, "N C"], labels: Int[Array, " N"]) -> Float[Array, ""]:
    """Share of images whose highest logit is their label's, in [0, 1]."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels)


def _kl(p_logits: Array, q_logits: Array) -> Array:
    log_p, log_q = jax.nn.log_softmax(p_logits), jax.nn.log_softmax(q_logits)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def _mean(per_image: Array, mask: Array | None) -> Array:
    return per_image.mean() if mask is None else jnp.sum(per_image * mask) / jnp.sum(mask)
