"""Prints the lowest versions that pyproject.toml states of what the library needs and of what plots, the estimator and the
examples need, as constraints for pip."""

import pathlib
import re
import tomllib

project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *extras["plots"], *extras["sklearn"], *extras["examples"]]:
    if floor := re.fullmatch(r"([\w-]+)>=([\d.]+).*", requirement):
        print("{}=={}".format(*floor.groups()))
