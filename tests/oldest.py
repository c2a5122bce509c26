"""The lowest versions that setup.cfg admits, as constraints for pip; jaxlib goes with jax.

python tests/oldest.py > constraints.txt
"""

import configparser
import re
from pathlib import Path

settings = configparser.ConfigParser()
settings.read(Path(__file__).parent.parent / "setup.cfg")
required = settings["options"]["install_requires"] + settings["options.extras_require"]["serve"]
lowest = dict(re.findall(r"^([\w-]+)>=([\d.]+)", required, flags=re.MULTILINE))
for name, version in (lowest | {"jaxlib": lowest["jax"]}).items():
    print(f"{name}=={version}")
