"""The one part of the build that pyproject.toml can't say: the C core, which may be missing.

It needs a compiler, libc and the headers of the kernel and of Python, and no library. Where one of them
isn't here, or the system isn't Linux, the package is built without it and works; `bothends engines`
says so.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

CORE = Extension(
    "bothends.engines._native",
    sources=sorted(str(path) for path in Path("native").glob("*.c")),
    depends=sorted(str(path) for path in Path("native").glob("*.h")),
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=["-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter"],
    optional=True,
)

GENERATOR = Extension(
    "bothends.bench._generator",
    sources=sorted(str(path) for path in Path("native/generator").glob("*.c")),
    depends=sorted(str(path) for path in Path("native/generator").glob("*.h")),
    define_macros=CORE.define_macros,
    extra_compile_args=CORE.extra_compile_args,
    optional=True,
)

setup(ext_modules=[CORE, GENERATOR] if sys.platform == "linux" else [])
