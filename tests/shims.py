"""A library to preload: memory fails as on a machine that has none, while a file is there."""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

static int failing(const char *what)
{
    const char *flag = getenv("FAULT_FLAG"), *chosen = getenv("FAULT");

    return flag && chosen && chosen[0] == what[0] && access(flag, F_OK) == 0;
}

int posix_fallocate64(int fd, off_t offset, off_t bytes)
{
    int (*real)(int, off_t, off_t) = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, "posix_fallocate64");

    if (fcntl(fd, F_GET_SEALS) >= 0 && failing("allocate"))
        return ENOSPC;
    return real(fd, offset, bytes);
}

int madvise(void *memory, size_t bytes, int advice)
{
    int (*real)(void *, size_t, int) = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "madvise");

    if (advice == 23 && failing("populate")) {
        errno = EFAULT;
        return -1;
    }
    return real(memory, bytes, advice);
}
"""


def build(directory: Path) -> Path:
    """The library. FAULT_FLAG names the file, FAULT what fails: `allocate` memfds, or `populate` their pages."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = directory / "shim.c", directory / "shim.so"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library
