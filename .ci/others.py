"""The short job on every interpreter of this machine but the one that runs this, and on the lowest versions.

An interpreter counts if it runs and can make environments. Each job is `make test-quick`, and `make test-floors` on the
oldest; two go at a time, on one core each.
"""

import concurrent.futures
import glob
import os
import pathlib
import shutil
import subprocess
import sys
import time

OLDEST = 11
ROOT = pathlib.Path(__file__).parents[1]
PYENV = os.environ.get("PYENV_ROOT", str(pathlib.Path.home() / ".pyenv"))


def interpreter(minor: int) -> str | None:
    name = f"python3.{minor}"
    folders = os.get_exec_path() + sorted(glob.glob(f"{PYENV}/versions/3.{minor}.*/bin"))
    for path in filter(None, (shutil.which(name, path=folder) for folder in folders)):
        asked = subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True, check=False)
        if asked.returncode == 0:
            return path
    return None


def run(name: str, python: str, target: str) -> bool:
    started = time.perf_counter()
    # What was given to the make that runs this is not for those that it runs.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "MFLAGS"}
    environment["PYTEST_ADDOPTS"] = "-n0"
    command = ["make", "--no-print-directory", f"PYTHON={python}", target]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(
        f"{'passed' if done.returncode == 0 else 'FAILED'} {name} ({time.perf_counter() - started:.0f} s)", flush=True
    )
    if done.returncode:
        print(done.stdout[-8000:], flush=True)
    return done.returncode == 0


def main() -> int:
    found = {minor: path for minor in range(OLDEST, OLDEST + 20) if (path := interpreter(minor))}
    own = sys.version_info.minor
    jobs = [(f"Python 3.{minor}", path, "test-quick") for minor, path in found.items() if minor != own]
    if oldest := sys.executable if own == OLDEST else found.get(OLDEST):
        jobs.insert(1, ("lowest versions", oldest, "test-floors"))
    else:
        print(f"no Python 3.{OLDEST} here to run the lowest versions on", flush=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(lambda job: run(*job), jobs))
    return not all(passed)


if __name__ == "__main__":
    sys.exit(main())
