"""Every test runs with shapes and types checked on each call, in float64 unless it says otherwise, and with implicit
promotion of dtypes and ranks an error."""

import ctypes
import gc
import itertools
import os
import pathlib
import subprocess
import sys

import jaxlib

CACHE = pathlib.Path(__file__).parents[1] / ".cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# Of compiled programs in a process, which then holds some 2 GB; the more it holds the longer each takes to compile.
MAPS = 5_000

# Most of the time goes into compiling small programs, which takes a quarter less without optimisation.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Some versions of XLA have two ways to make code of what is fused, and the plainer one saves two fifths of what is left; and
# a program in one piece, not one for each of many threads, another eighth. A flag that XLA does not know ends the process,
# so a process of its own is asked, once for each version.
PLAINER = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def known(flag: str) -> bool:
    answer = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) / f"jaxlib-{jaxlib.__version__}{flag}"
    if not answer.exists():
        command = [sys.executable, "-c", "import jax; jax.devices()"]
        asked = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flag}, capture_output=True, check=False)
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.write_text("known" if asked.returncode == 0 else "unknown")
    return answer.read_text() == "known"


if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join(filter(known, PLAINER))

# A core for each worker: two that share two cores spend most of their time waiting for each other's threads.
worker = os.environ.get("PYTEST_XDIST_WORKER")
if worker and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("pathwise_gp", "beartype.beartype")

import jaxtyping  # noqa: E402
import pytest  # noqa: E402


def pytest_collection_finish():
    # Nothing that there is now will go, and what a trace leaves behind is little: to look for garbage takes a twentieth.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items):
    # What takes longest comes first, so that no worker waits for another one's last test.
    items.sort(key=lambda item: "test_examples" not in item.nodeid)


@pytest.fixture
def no_hook():
    """Without the checks of the import hook, as users run the package: its own errors must do."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def standard_promotion():
    """JAX's default promotion rules, for NumPyro's samplers, which mix dtypes and ranks inside."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


finished = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs():
    """Compiled programs stay mapped, a hundred maps and more for each: they take memory, and a process with too many crashes.
    Now and then, as counting them takes a hundredth of a second."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if next(finished) % 10 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MAPS:
        jax.clear_caches()
        # Two thirds of what is free now lie between what is not, and glibc gives them back when it is asked.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
