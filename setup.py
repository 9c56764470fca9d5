"""Build the C extensions, which are optional. Everything else is in pyproject.toml.

They need a compiler, libc and the headers of Linux and Python, and no library: OpenSSL, which the load
generator calls, is found when it runs. Without them the package is built without the extensions and works;
`bothends engines` says why the native engine is missing. The source of calls that uses eBPF needs clang and
libbpf as well. Without them `bothends trace` uses strace.
"""

import os
import platform
import re
import shutil
import struct
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

TRACE = Extension(
    "bothends.trace._pipeline",
    sources=sorted(str(path) for path in Path("native/trace").glob("*.c")),
    depends=sorted(str(path) for path in Path("native/trace").glob("*.h")),
    define_macros=CORE.define_macros,
    extra_compile_args=[*CORE.extra_compile_args, "-fvisibility=hidden"],
    optional=True,
)

# The BPF programs, and the name that each has in C.
BPF_PROGRAMS = {Path("native/bpf/calls.bpf.c"): "bpf_object", Path("native/bpf/tls.bpf.c"): "bpf_tls_object"}
BPF = Extension(
    "bothends.trace.capture._bpf",
    sources=sorted(str(path) for path in Path("native/bpf").glob("*.c") if path not in BPF_PROGRAMS),
    depends=[*sorted(str(path) for path in Path("native/bpf").glob("*.h")), *map(str, BPF_PROGRAMS)],
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


def without_debug_data(elf: bytes) -> bytes:
    """Return a 64-bit ELF file with zeros for what libbpf does not need, which compress well (elf(5)).

    That is DWARF, which clang writes beside BTF; of .BTF and .BTF.ext the lines of source, which a log of the
    kernel's verifier would show, with the relocations of .BTF.ext, which libbpf ignores; and the symbols of
    jump targets (LBB2_1), to which no relocation refers.
    """
    data = bytearray(elf)
    order = "<" if data[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", data, 40)  # e_shoff
    size, count, names = struct.unpack_from(f"{order}HHH", data, 58)  # e_shentsize, e_shnum, e_shstrndx
    sections = [struct.unpack_from(f"{order}IIQQQQI", data, table + size * index) for index in range(count)]
    for name, _, _, _, offset, length, link in sections:
        start = sections[names][4] + name
        title = bytes(data[start : data.index(0, start)])
        if title == b".BTF":
            # struct btf_header: hdr_len, type_off, type_len, str_off, str_len. No name has these signs.
            header, _, _, begin, length = struct.unpack_from(f"{order}5I", data, offset + 4)
            begin += offset + header
            for line in re.finditer(rb"[^\0]*[;(){}][^\0]*", data[begin : begin + length]):
                data[begin + line.start() : begin + line.end()] = bytes(len(line[0]))
            continue
        if title == b".BTF.ext":
            # struct btf_ext_header: hdr_len, then offset and length of func_info and of line_info.
            header, _, _, begin, lines = struct.unpack_from(f"{order}5I", data, offset + 4)
            struct.pack_into(f"{order}I", data, offset + 20, 0)
            offset, length = offset + header + begin, lines
        elif title == b".symtab":
            for symbol in range(offset, offset + length, 24):  # Elf64_Sym, which begins with st_name
                at = sections[link][4] + struct.unpack_from(f"{order}I", data, symbol)[0]
                if data.startswith(b"LBB", at):
                    data[symbol : symbol + 24] = bytes(24)
                    end = data.index(0, at)
                    data[at:end] = bytes(end - at)
            continue
        elif not title.startswith((b".debug_", b".rel.debug_", b".rel.BTF.ext")):
            continue
        data[offset : offset + length] = bytes(length)
    return bytes(data)


class BuildExtensions(build_ext):  # type: ignore[misc]  # it has no types
    """Builds the extensions, and first the BPF programs that `_bpf` embeds."""

    def build_extension(self, extension: Extension) -> None:
        """Build one extension."""
        if extension is BPF:
            folder = Path(self.build_temp) / "bpf"
            folder.mkdir(parents=True, exist_ok=True)
            for program, name in BPF_PROGRAMS.items():
                extension.sources = [*extension.sources, str(self.embed(program, name, folder))]
            extension.include_dirs = ["native/bpf"]
        super().build_extension(extension)

    def embed(self, program: Path, name: str, folder: Path) -> Path:
        """Compile a BPF program. Returns a C file that holds it, as `name`_bytes."""
        compiled, embedded = folder / f"{program.stem}.o", folder / f"{name}.c"
        self.spawn(
            [
                "clang",
                "-O2",
                "-g",
                "-fdebug-compilation-dir=.",
                "-target",
                "bpf",
                "-mcpu=v3",  # for compare and exchange; Linux 5.12
                f"-D__TARGET_ARCH_{BPF_TARGETS[platform.machine()]}",
                f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH') or ''}",
                "-c",
                str(program),
                "-o",
                str(compiled),
            ]
        )
        data = without_debug_data(compiled.read_bytes())
        numbers = ",".join(map(str, data))
        embedded.write_text(
            '#include "object.h"\n'
            f"const unsigned char {name}_bytes[] __attribute__((aligned(8))) = {{{numbers}}};\n"
            f"const size_t {name}_size = sizeof {name}_bytes;\n"
        )
        return embedded


extensions = [CORE, GENERATOR, TRACE]
if has_libbpf():
    extensions.append(BPF)
# BOTHENDS_PURE=1: the wheel for systems that no other wheel is for.
is_pure = sys.platform != "linux" or os.environ.get("BOTHENDS_PURE") == "1"
# Written by `make dist`: man finds them beside the programs of an environment (manpath(1)).
pages = sorted(str(path) for path in Path("man").glob("*.1"))
setup(
    ext_modules=[] if is_pure else extensions,
    cmdclass={"build_ext": BuildExtensions},
    data_files=[("share/man/man1", pages)],
)
