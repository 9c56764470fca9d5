"""Build the C extensions, which are optional. Everything else is in pyproject.toml.

They need a compiler, libc and the headers of Linux and Python, and no library. Without them the package is
built without the extensions and works; `bothends engines` says why the native engine is missing.
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
