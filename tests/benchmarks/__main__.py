"""Times the library beside its limits and its peers: `make bench`, or `python tests/benchmarks [ROW ...] [--smoke]`.

Each row runs in a process of its own, without a compilation cache.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import jax
from harness import measure, table, versions
from rows import ROWS

LIBRARIES = ("jax", "equinox", "numpyro", "botorch", "gpytorch", "torch", "gpjax", "tinygp", "scikit-learn")


def run_here(name: str, smoke: bool) -> dict:
    """The results of one row, in this process."""
    jax.config.update("jax_enable_x64", bool(ROWS[name][1]))
    return measure(ROWS[name][0](smoke), smoke=smoke)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"any of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, each call once: whether it runs")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if arguments.here:
        print(json.dumps(run_here(arguments.rows[0], arguments.smoke)))
        return 0
    print(versions(LIBRARIES) + "\n", flush=True)
    failed = 0
    for name in arguments.rows or ROWS:
        if arguments.smoke:  # nothing is timed, and one process compiles what rows have in common once
            print(table(run_here(name, smoke=True)), flush=True)
            continue
        # As the documentation advises: threads of LAPACK's own would take a core from what follows them.
        threads = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}
        environment = threads | os.environ | {"JAX_ENABLE_X64": str(int(ROWS[name][1]))}
        for variable in ("JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):
            environment.pop(variable, None)
        command = [sys.executable, str(pathlib.Path(__file__).parent), name, "--here"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            failed += 1
            print(f"### {name}: failed\n\n{done.stderr[-3000:]}", flush=True)
        else:
            print(table(json.loads(done.stdout.splitlines()[-1])), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
