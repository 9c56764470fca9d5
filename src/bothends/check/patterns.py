"""Compile the regular expressions of contracts."""

from __future__ import annotations

import re
import warnings


def compile_pattern(pattern: str | bytes) -> re.Pattern[bytes]:
    """Compile a pattern in which a dot matches LF too. Raises re.error."""
    with warnings.catch_warnings():
        # Python warns of "[[", which a later version may interpret in another way.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.DOTALL)
        except OverflowError as error:  # a{99999999999}
            raise re.error(str(error)) from error
        except RecursionError as error:
            raise re.error("nested too deeply") from error
