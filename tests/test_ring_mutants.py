"""Do the proofs of the ring and the pair see what they are for? Each mutant breaks the C core in one place, in a copy;
the proof named with it must fail there, and hold where nothing is broken. Fences and orders have their mutants in
native/proofs/prove_order.c, which weakens each."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

NATIVE = Path(__file__).parent.parent / "native"
CORE = ("clock.c", "mailbox.c", "pair.c", "pool.c", "ring.c")
HELPERS = {
    "order": ["explore.c", "model.c"],
    "traffic": ["traffic.c"],
    "fuzz": ["guard.c"],
    "hostile": ["guard.c"],
    "pool": ["guard.c"],
}
WRAPPED = "-Wl,--wrap=mmap,--wrap=mmap64,--wrap=munmap"
# Deaths at chosen instructions need ptrace(2), which some containers refuse.
SKIPPED = 77

pytestmark = pytest.mark.stress


class Mutant(NamedTuple):
    """One place, and the program that must notice."""

    name: str
    file: str
    old: str
    new: str
    program: str


MUTANTS = [
    Mutant(
        "the word comes before the zero behind it",
        "ring.h",
        "    atomic_store_explicit(ring_word_at(writer->data, end & mask), 0, memory_order_relaxed);\n",
        "",
        "kill",
    ),
    Mutant(
        "a size is believed",
        "ring.h",
        "bytes > ring_max_size(reader->mask) ||\n        ring_record_bytes(bytes) > reader->mask + 1 - place",
        "false",
        "fuzz",
    ),
    Mutant(
        "a record may leave the ring",
        "ring.h",
        "        ring_record_bytes(bytes) > reader->mask + 1 - place)",
        "        false)",
        "hostile",
    ),
    Mutant(
        "counted after it is delivered",
        "pair.h",
        "    atomic_store_explicit(&pair->receiver_page->taken, taken, memory_order_relaxed);\n"
        "    ring_release(&pair->receiver.ring);\n",
        "    ring_release(&pair->receiver.ring);\n"
        "    atomic_store_explicit(&pair->receiver_page->taken, taken, memory_order_release);\n",
        "kill",
    ),
    Mutant(
        "the gate is looked at before the record is there",
        "ordering.h",
        "    atomic_thread_fence(memory_order_seq_cst);\n",
        "",
        "order",
    ),
    Mutant(
        "a record without its kind is refused",
        "ring.h",
        "    if (word >> 32 == RING_NONE) {\n",
        "    if (word == 0) {\n",
        "order",
    ),
    Mutant(
        "what is late is seen before what it speaks of",
        "ring.c",
        "ring_word(first, RING_NONE), memory_order_relaxed",
        "ring_word(first, later->kind), memory_order_relaxed",
        "order",
    ),
    Mutant(
        "a pair stays mapped", "pair.c", "        munmap(pair->memory, pair->total_bytes);\n", "        ;\n", "attach"
    ),
    Mutant(
        "the word behind the record has no room",
        "ring.h",
        "    if (writer->room_to - position < need + RING_WORD_BYTES) {\n"
        "        error = ring_find_room(writer, position + need + RING_WORD_BYTES);\n",
        "    if (writer->room_to - position < need) {\n        error = ring_find_room(writer, position + need);\n",
        "order",
    ),
    Mutant(
        "the reader gives back what it has not read",
        "ring.h",
        "atomic_store_explicit(reader->reader_position, reader->position, memory_order_release)",
        "atomic_store_explicit(reader->reader_position, reader->position + 64, memory_order_release)",
        "traffic",
    ),
    Mutant("a block's offset is believed", "pool.h", "within >= capacity || ", "", "pool"),
    Mutant("a block's size is believed", "pool.h", " || reference->size > capacity - within", "", "pool"),
    Mutant("a block's slot is believed", "pool.h", "reference->slot >= POOL_SLOTS || ", "", "pool"),
    Mutant(
        "any word gives a block back",
        "pool.c",
        "returned == pool->slots[number].generation",
        "returned",
        "pool",
    ),
    Mutant(
        "a word gives back what is not out",
        "pool.c",
        "uint64_t out = pool->out[i]; out;",
        "uint64_t out = ~UINT64_C(0); out;",
        "pool",
    ),
    Mutant(
        "runs that touch stay two",
        "pool.c",
        "at < pool->n_free && first_page + n_pages ==",
        "false && at ==",
        "pool",
    ),
    Mutant(
        "a block that is out is given to another body",
        "pool.c",
        "    pool->free[at].n_pages -= (uint32_t)n_pages;\n",
        "    pool->free[at].n_pages -= (uint32_t)n_pages - (n_pages > 1);\n",
        "pool",
    ),
    Mutant(
        "pages of a block in use are trimmed",
        "pool.c",
        "if (slot->n_pages && keep < slot->first_page + slot->n_pages)",
        "if (slot->n_pages && keep < slot->first_page)",
        "pool",
    ),
]


def run(place: Path, program: str) -> subprocess.CompletedProcess[str]:
    """The proof's short version, of the C core as it is there."""
    helpers = HELPERS.get(program, [])
    # What the order is proven of is part of the program.
    core = [] if program == "order" else [str(place / name) for name in CORE]
    sources = [str(place / "proofs" / name) for name in [f"prove_{program}.c", *helpers]]
    made = place / program
    link = [WRAPPED] if "guard.c" in helpers else []
    compiler = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-g", "-pthread", "-D_FILE_OFFSET_BITS=64"]
    subprocess.run([*compiler, "-o", str(made), *sources, *core, *link], check=True)
    return subprocess.run([str(made)], capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the C core and its proofs."""
    shutil.copytree(NATIVE, tmp_path / "native")
    return tmp_path / "native"


@pytest.mark.parametrize("program", sorted({mutant.program for mutant in MUTANTS}))
def test_nothing_fails_where_nothing_is_broken(place: Path, program: str) -> None:
    done = run(place, program)
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_noticed(place: Path, mutant: Mutant) -> None:
    file = place / mutant.file
    source = file.read_text()
    assert source.count(mutant.old) == 1, f"{mutant.file} has changed: find the place of {mutant.name!r} again"
    file.write_text(source.replace(mutant.old, mutant.new))
    done = run(place, mutant.program)
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr)
    assert done.returncode != 0, f"prove_{mutant.program} does not notice that {mutant.name}:\n{done.stdout}"
