"""What is said of tables of pandas, and of columns that hold no numbers."""

from typing import Any

import numpy as np

# What NumPy calls the kinds of numbers; strings, and dates and spans of time; and flags.
_NUMBERS, _STRINGS, _DATES, _FLAGS = "fiu", "UST", "Mm", "b"


def is_table(x: Any) -> bool:
    """Whether it is a Series or a DataFrame of pandas, which is not imported here."""
    return hasattr(x, "iloc") and hasattr(x, "to_numpy")


def refuse_columns(x: Any, name: str) -> None:
    """Raises where a table, or an array, has columns of strings, dates or other things that are no numbers."""
    if is_table(x):
        columns = dict(x.dtypes) if x.ndim == 2 else {x.name: x.dtype}
        bad = {column: dtype for column, dtype in columns.items() if dtype.kind not in _NUMBERS}
        if bad:
            listed = ", ".join(f"{column!r} ({dtype})" for column, dtype in bad.items())
            where = "the column(s)" if x.ndim == 2 else "the Series"
            advice = " ".join(dict.fromkeys(_advice(dtype) for dtype in bad.values()))
            raise ValueError(f"`{name}` must be real numbers; {where} {listed} are not. {advice}")
    elif isinstance(x, np.ndarray) and x.dtype.kind in _STRINGS + _DATES:
        raise ValueError(f"`{name}` must be an array of numbers; got dtype {x.dtype}. {_advice(x.dtype)}")


def _advice(dtype: Any) -> str:
    """How to make numbers of what has a dtype."""
    if dtype.kind in _DATES:
        return "Dates become numbers as days since the first, `(dates - dates.min()) / numpy.timedelta64(1, 'D')`."
    if dtype.kind in _FLAGS:
        return "Flags become numbers by `.astype(float)`."
    return (
        "Digits become numbers by `.astype(float)`, and names the numbers of categories, for `Categorical` or `Index`, by "
        "`column.astype('category').cat.codes`."
    )


def column(name: str, x: Any) -> str:
    """How to make a column of values the inputs of one dimension."""
    return f"{name}.to_frame()" if is_table(x) else f"{name}[:, None]"


def values(name: str, x: Any) -> str:
    """How to take the values out of a table of one column."""
    return f"{name}.iloc[:, 0]" if is_table(x) else f"{name}[:, 0]"


def in_words_of(x: Any, advice: str) -> str:
    """Advice on entries that are not finite, in the words of pandas where a table was given."""
    if not is_table(x):
        return advice
    return advice.replace("jnp.isfinite(y)", "y.notna()")
