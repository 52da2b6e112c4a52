"""Which outputs of a function depend on its arguments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.extend


def depends(function: Callable[..., Any], *args: Any) -> Any:
    """For each array that `function` returns, whether it depends on the arguments: by following its jaxpr.

    **Arguments:** `function`: returns a pytree of arrays; `*args`: pytrees of arrays.

    **Returns:** a pytree of bools. What is computed from closed-over values alone is False.
    """
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    flags = _propagate(closed.jaxpr, [True] * len(closed.jaxpr.invars))
    return jax.tree.unflatten(jax.tree.structure(out), flags)


def _propagate(jaxpr: Any, inputs: list[bool]) -> list[bool]:
    varying = {variable for variable, flag in zip(jaxpr.invars, inputs, strict=True) if flag}
    is_varying = lambda v: not isinstance(v, jax.extend.core.Literal) and v in varying
    for equation in jaxpr.eqns:
        flags = [is_varying(v) for v in equation.invars]
        inner = equation.params.get("jaxpr")
        if equation.primitive.name in ("jit", "pjit") and inner is not None:
            outputs = _propagate(inner.jaxpr, flags)  # what a jitted function only passes on stays as it was
        else:
            outputs = [any(flags)] * len(equation.outvars)
        varying |= {variable for variable, flag in zip(equation.outvars, outputs, strict=True) if flag}
    return [is_varying(v) for v in jaxpr.outvars]
