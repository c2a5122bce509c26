"""A search that uses whole answers: Gauss-Newton on every class's soft prompt at once, in random directions.

Near the present prompts, column c of the logits is linear in class c's own prompt. So the answers to P perturbations
give every class the change of its column along P directions, and a least-squares problem in C P coefficients, solved
without further queries, gives the best combination for all classes together. R candidates at R radii of trust are asked
for, and the best is taken if it is better than the present point. What is fitted is a target for each image (the
predictions of a head that has seen more, `method.stacked`) by a linear map of the logits, which is solved for exactly
at every point (variable projection; Golub and Pereyra, 1973). Differences are one-sided: pairs cost twice as much, and
the linear model does not gain by them what as many steps do.

Shapes: M images, C classes, P directions, R radii.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from craft_jax.method.estimators.ask_tell import SearchState, begin
from craft_jax.method.stacked import centred

RADII = (0.3, 3.0, 30.0, 300.0)  # times the damping: the trust region's radii, widest first
_RIDGE = 3e-3  # of the linear map, in mean variances of the logits
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-5, 1e3  # of a step, in mean curvatures
_ITERATIONS = 40  # of conjugate gradients


class Trust(NamedTuple):
    """What the search remembers: how far it trusts its linear model."""

    damping: Float[Array, ""]


class GaussNewton(NamedTuple):
    """The search.

    Attributes:
      key: of the directions.
      directions: P.
      sigma: length of a perturbation, in units of z.
    """

    key: Array
    directions: int
    sigma: float

    @property
    def population_size(self) -> int:
        """Prompts asked for in a step."""
        return self.directions + len(RADII)

    def init(self, z: Float[Array, "C dim"]) -> SearchState:
        """At z, having been told nothing."""
        return begin(z, Trust(jnp.asarray(_FIRST_DAMPING)))

    def ask(self, state: SearchState) -> Float[Array, "P C dim"]:
        """One perturbation along each direction; a pure function of the state."""
        return state.z[None] + self.sigma * self._directions(state)

    def propose(
        self,
        state: SearchState,
        present: Float[Array, "M C"],
        answers: Float[Array, "P M C"],
        target: Float[Array, "M C"],
    ) -> Float[Array, "R C dim"]:
        """The minimisers of the linear model, one a radius.

        Args:
          state: that was asked from.
          present: logits of the present prompts.
          answers: those of `ask`'s.
          target: that a linear map of the logits is to equal; less its mean over classes.
        """
        jacobian = (answers - present[None]) / self.sigma
        damping = state.memory.damping * jnp.asarray(RADII)
        coefficients = _minimisers(jacobian, centred(present), target, damping)
        return state.z[None] + jnp.einsum("rcp,pcd->rcd", coefficients, self._directions(state))

    def settle(
        self,
        state: SearchState,
        proposed: Float[Array, "R C dim"],
        objectives: Float[Array, " R"],
        present: Float[Array, ""],
    ) -> SearchState:
        """Moves to the best proposal if it is better than the present point; trusts more, or less, accordingly."""
        least, better = best(objectives, present)
        damping = state.memory.damping * jnp.where(better, jnp.asarray(RADII)[least] / RADII[1], RADII[2])
        return SearchState(
            z=jnp.where(better, proposed[least], state.z),
            memory=Trust(jnp.clip(damping, _LEAST_DAMPING, _MOST_DAMPING)),
            step=state.step + 1,
        )

    def _directions(self, state: SearchState) -> Float[Array, "P C dim"]:
        key = jax.random.fold_in(self.key, state.step)
        drawn = jax.random.normal(key, (self.directions, *state.z.shape))
        return drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)


def best(objectives: Float[Array, " R"], present: Float[Array, ""]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """Which proposal has the least objective, and whether it is below the present point's."""
    least = jnp.argmin(objectives)
    return least, objectives[least] < present  # never below where either is not a number


def linear_map(logits: Float[Array, "M C"], target: Float[Array, "M C"]) -> Float[Array, "C C"]:
    """W with f W nearest to the target, f centred logits; by ridge regression towards a multiple of the identity."""
    return _solve(*_normal_equations(logits, target))


def objective(logits: Float[Array, "M C"], target: Float[Array, "M C"]) -> Float[Array, ""]:
    """Squared distance of f W from the target at the best W, with the ridge's penalty."""
    gram, cross, ridge, multiple = _normal_equations(logits, target)
    weights = _solve(gram, cross, ridge, multiple)
    apart = weights - multiple * jnp.eye(len(gram))
    # |f W - T|^2 without another pass over the images.
    distance = jnp.sum(target**2) + jnp.sum(weights * (gram @ weights - 2 * cross))
    return distance + ridge * jnp.sum(apart**2)


def _normal_equations(logits: Array, target: Array) -> tuple[Array, Array, Array, Array]:
    """f^T f, f^T T, the ridge, and the multiple of f that is nearest to the target."""
    gram, cross = logits.T @ logits, logits.T @ target
    return gram, cross, _RIDGE * jnp.trace(gram) / len(gram), jnp.trace(cross) / jnp.trace(gram)


def _solve(gram: Array, cross: Array, ridge: Array, multiple: Array) -> Float[Array, "C C"]:
    identity = jnp.eye(len(gram))
    return jax.scipy.linalg.solve(gram + ridge * identity, cross + ridge * multiple * identity, assume_a="pos")


def _minimisers(
    jacobian: Float[Array, "P M C"],
    logits: Float[Array, "M C"],
    target: Float[Array, "M C"],
    damping: Float[Array, " R"],
) -> Float[Array, "R C P"]:
    """argmin_a |(f + sum_p a_cp J_pc) W - T|^2 + damping |a|^2 (in mean curvatures) at the present map W."""
    weights = centred(linear_map(logits, target))
    across = weights @ weights.T
    slope = jnp.einsum("pmc,mc->cp", jacobian, (target - logits @ weights) @ weights.T)
    curvature = jnp.einsum("pmc,pmc->cp", jacobian, jacobian) * jnp.diag(across)[:, None]

    def normal(a: Float[Array, "C P"], damping: Array) -> Float[Array, "C P"]:
        moved = jnp.einsum("pmc,cp->mc", jacobian, a)
        return jnp.einsum("pmc,mc->cp", jacobian, moved @ across) + damping * curvature.mean() * a

    def at(damping: Array) -> Float[Array, "C P"]:
        solved, _ = jax.scipy.sparse.linalg.cg(lambda a: normal(a, damping), slope, maxiter=_ITERATIONS, tol=1e-4)
        return solved

    return jax.vmap(at)(damping)
