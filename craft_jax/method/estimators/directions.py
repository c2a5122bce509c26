"""Random directions to perturb along: (key, pairs P, dim) -> [P, dim] with E[e e^T] = I."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Directions = Callable[[Array, Array, int], Array]


def gaussian(key: Array, pairs: Int[Array, " P"], dim: int) -> Float[Array, "P dim"]:
    """Independent standard normal directions, each from the key of its pair.

    References:
      Nesterov and Spokoiny, Random gradient-free minimization of convex functions, 2017
    """
    return _for_each_pair(key, pairs, lambda own: jax.random.normal(own, (dim,)))


def rademacher(key: Array, pairs: Int[Array, " P"], dim: int) -> Float[Array, "P dim"]:
    """Independent signs: the directions of SPSA.

    References:
      Spall, Multivariate stochastic approximation using a simultaneous perturbation gradient approximation, 1992
    """
    return _for_each_pair(key, pairs, lambda own: jax.random.rademacher(own, (dim,), jnp.float32))


def sphere(key: Array, pairs: Int[Array, " P"], dim: int) -> Float[Array, "P dim"]:
    """Independent directions, uniform on the sphere of radius sqrt(dim)."""
    e = gaussian(key, pairs, dim)
    return jnp.sqrt(float(dim)) * e / jnp.linalg.norm(e, axis=-1, keepdims=True)


def orthogonal(key: Array, pairs: Int[Array, " P"], dim: int) -> Float[Array, "P dim"]:
    """Mutually orthogonal directions of length sqrt(dim), uniformly distributed; P must not exceed dim.

    Being orthogonal, they repeat nothing that another pair has measured.

    References:
      Choromanski et al., Structured evolution with compact architectures for scalable policy optimization, ICML 2018
    """
    return orthogonalise(gaussian(key, pairs, dim))


def orthogonalise(directions: Float[Array, "P dim"]) -> Float[Array, "P dim"]:
    """The directions made orthogonal to those before them, at length sqrt(dim).

    Gram-Schmidt, each row twice, which is orthogonal to the last bits ("twice is enough"; Giraud et al., 2005).
    LAPACK's QR would do, but batched over blocks inside a step it was seen to lock up XLA's threads on a CPU.
    """

    def add(basis: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        index, vector = row
        for _ in range(2):
            shares = jnp.matmul(basis, vector, precision="highest")
            vector = vector - jnp.matmul(shares, basis, precision="highest")
            vector = vector / jnp.linalg.norm(vector)
        return basis.at[index].set(vector), None

    rows = (jnp.arange(len(directions)), directions)
    basis, _ = jax.lax.scan(add, jnp.zeros_like(directions), rows)
    return jnp.sqrt(float(directions.shape[1])) * basis


def _for_each_pair(key: Array, pairs: Array, draw: Callable[[Array], Array]) -> Array:
    return jax.vmap(lambda pair: draw(jax.random.fold_in(key, pair)))(pairs)


DIRECTIONS: dict[str, Directions] = {
    "gaussian": gaussian,
    "orthogonal": orthogonal,
    "rademacher": rademacher,
    "sphere": sphere,
}


def for_blocks(directions: Directions, key: Array, pairs: int, blocks: int, dim: int) -> Float[Array, "P B dim"]:
    """Directions of each block, drawn independently."""
    keys = jax.random.split(key, blocks)
    drawn = jax.vmap(lambda own: directions(own, jnp.arange(pairs), dim))(keys)
    return jnp.swapaxes(drawn, 0, 1)
