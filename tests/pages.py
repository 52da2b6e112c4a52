"""Runs the code of each page that is named, and each script in its short form, in one process as they compile much that is
the same: `python tests/pages.py README.md examples/gallery/level_sets.py …`, with figures in the folder where it runs."""

import contextlib
import io
import pathlib
import re
import runpy
import sys
import time

import jax
import matplotlib.pyplot as plt

ROOT = pathlib.Path(__file__).parents[1]


def code(page: pathlib.Path) -> str:
    """The blocks of a page as one program, each on the lines that it has there."""
    lines = page.read_text().splitlines()
    inside, program = False, []
    for line in lines:
        starts, inside = line == "```python", inside and line != "```"
        program.append(line if inside else "")
        inside = inside or starts
    # A round of a loop is run by its script, and a chain of eight draws does what a longer one does.
    program = ["" if line.startswith("batch = next_batch(") else line for line in program]
    return re.sub(r"\bnum_(warmup|samples)=\d+", r"num_\1=8", "\n".join(program))


def pages() -> list[str]:
    """Those that hold code."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").rglob("*.md"))]
    return [str(page.relative_to(ROOT)) for page in found if code(page).strip()]


def main() -> None:
    plt.switch_backend("agg")
    for name in sys.argv[1:]:
        started = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            if name.endswith(".py"):
                sys.argv = [name, "--fast", "--figures", pathlib.Path(name).stem]
                runpy.run_path(str(ROOT / name), run_name="__main__")
            else:
                exec(compile(code(ROOT / name), name, "exec"), {"__name__": "page"})
        plt.close("all")
        jax.clear_caches()
        jax.config.update("jax_enable_x64", False)
        print(f"{time.process_time() - started:5.1f} s {name}", flush=True)


if __name__ == "__main__":
    main()
