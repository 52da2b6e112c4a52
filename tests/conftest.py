"""Every test runs with shapes and types checked on each call, in float64 unless it says otherwise, and with implicit
promotion of dtypes and ranks an error."""

import mmap
import os
import pathlib

import jaxlib

CACHE = pathlib.Path(__file__).parents[1] / ".cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


# Most of the time goes into compiling small programs, which takes a third as long without optimisation, and with the plainer
# of two ways to make code of what is fused. An XLA that does not know a flag would end the process: then it is left out.
def known(flag: str) -> bool:
    for library in pathlib.Path(jaxlib.__file__).parent.glob("**/libjax_common*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(flag.encode()) >= 0
    return False


FLAGS = {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": "false"}
os.environ.setdefault("XLA_FLAGS", " ".join(f"--{flag}={value}" for flag, value in FLAGS.items() if known(flag)))

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


@pytest.fixture(autouse=True)
def few_programs():
    """Compiled programs stay mapped, a hundred maps and more for each, and a process that has too many crashes."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
