"""Progress bars of loops in compiled code."""

from typing import Any

import jax


class ProgressBar:
    """A bar of tqdm on standard error, which compiled code moves on; each run of the code starts it anew."""

    def __init__(self, total: int, unit: str):
        self._total, self._unit, self._bar = total, unit, None

    def report(self, step: Any, last: Any, text: str = "", *numbers: Any) -> None:
        """To be called while tracing: moves the bar to a step when the compiled code comes there.

        **Arguments:** `step`: how many are done, 1 in the first report of a run; `last`: whether the run ends here, which may
        be before all steps are done; `text`, `numbers`: what stands behind the bar, a format and what goes into it.
        """
        jax.debug.callback(
            lambda step, last, *numbers: self._show(step, last, text.format(*numbers)), step, last, *numbers
        )

    def _show(self, step: Any, last: Any, text: str) -> None:
        from tqdm.auto import tqdm  # which looks for a notebook

        if jax.process_index() > 0:  # all processes see the same
            return
        if step == 1 and (self._bar is None or self._bar.n > 1):  # a run that failed has left its bar
            self._bar = tqdm(total=self._total, unit=self._unit)
        if self._bar is None:  # reports may overtake each other
            return
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(max(0, int(step) - self._bar.n))
        if last:
            self._bar.close()
            self._bar = None
