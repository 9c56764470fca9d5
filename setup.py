"""Build the C extensions, which are optional. Everything else is in pyproject.toml.

They need a compiler, libc and the headers of Linux and Python, and no library. Without them the package is
built without the extensions and works; `bothends engines` says why the native engine is missing. The source
of calls that uses eBPF needs clang and libbpf as well. Without them `bothends trace` uses strace.
"""

import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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

BPF_PROGRAM = Path("native/bpf/calls.bpf.c")
BPF = Extension(
    "bothends.trace.capture._bpf",
    sources=sorted(str(path) for path in Path("native/bpf").glob("*.c") if path != BPF_PROGRAM),
    depends=[*sorted(str(path) for path in Path("native/bpf").glob("*.h")), str(BPF_PROGRAM)],
    define_macros=CORE.define_macros,
    extra_compile_args=[*CORE.extra_compile_args, "-fvisibility=hidden"],
    libraries=["bpf", "elf", "z"],
    optional=True,
)
LIBBPF_HEADERS = ["bpf/libbpf.h", "bpf/bpf_core_read.h", "libelf.h", "zlib.h"]
# How clang and libbpf name the architectures.
BPF_TARGETS = {"x86_64": "x86", "aarch64": "arm64"}


def has_libbpf() -> bool:
    """Return whether clang and the headers of libbpf are there, so that building can work."""
    if shutil.which("clang") is None or platform.machine() not in BPF_TARGETS:
        return False
    checked = subprocess.run(
        ["clang", "-E", "-x", "c", "-"],
        input="".join(f"#include <{name}>\n" for name in LIBBPF_HEADERS).encode(),
        capture_output=True,
        check=False,
    )
    return checked.returncode == 0


class BuildExtensions(build_ext):  # type: ignore[misc]  # it has no types
    """Builds the extensions, and first the BPF programs that `_bpf` embeds."""

    def build_extension(self, extension: Extension) -> None:
        """Build one extension."""
        if extension is BPF:
            folder = Path(self.build_temp) / "bpf"
            folder.mkdir(parents=True, exist_ok=True)
            compiled, embedded = folder / "calls.bpf.o", folder / "object.c"
            self.spawn(
                [
                    "clang",
                    "-O2",
                    "-g",
                    "-target",
                    "bpf",
                    f"-D__TARGET_ARCH_{BPF_TARGETS[platform.machine()]}",
                    f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH') or ''}",
                    "-c",
                    str(BPF_PROGRAM),
                    "-o",
                    str(compiled),
                ]
            )
            data = compiled.read_bytes()
            numbers = ",".join(map(str, data))
            embedded.write_text(
                '#include "object.h"\n'
                f"const unsigned char bpf_object_bytes[] __attribute__((aligned(8))) = {{{numbers}}};\n"
                "const size_t bpf_object_size = sizeof bpf_object_bytes;\n"
            )
            extension.sources = [*extension.sources, str(embedded)]
            extension.include_dirs = ["native/bpf"]
        super().build_extension(extension)


extensions = [CORE, GENERATOR]
if has_libbpf():
    extensions.append(BPF)
setup(ext_modules=extensions if sys.platform == "linux" else [], cmdclass={"build_ext": BuildExtensions})
