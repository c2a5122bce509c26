"""Peak resident memory of one step, in a process of its own: python -m benchmarks.memory CLASSES IMAGES."""

import resource
import sys

import jax

from benchmarks import sizes, speed
from craft_jax import assembly, collaborative, devices
from craft_jax.config import Config

if __name__ == "__main__":
    classes, images = map(int, sys.argv[1:])
    clip = sizes.model(32)
    problem = speed.problem_of_size(clip, sizes.random_params(clip), classes, images, views=2)
    method = assembly.build_method(Config(), images, classes, devices=1)
    spread = devices.Spread(jax.local_devices()[:1])
    step = spread.compile(collaborative.run_steps(collaborative.build_step(method), 1))
    state = spread.mapped(assembly.initial_state(method, Config(), classes))
    jax.block_until_ready(step(spread.replicate(problem), state))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
