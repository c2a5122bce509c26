"""Lists the benchmarks: `python -m benchmarks`."""

from benchmarks import command

for module, docstring in command.commands().items():
    print(f"python -m {module}\n    {docstring.splitlines()[0]}")
