"""Do the tests of the journal see what they are for? Each mutant breaks the C core in one place, in a copy; the program
named with it must fail there, and hold where nothing is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

NATIVE = Path(__file__).parent.parent / "native"
CORE = ("crc32c.c", "scan.c", "segment.c")

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
        "the checksum is not asked",
        "scan.c",
        "return crc == header->crc;",
        "return 1;",
        "journal_recovery",
    ),
    Mutant(
        "a reader does not ask for the checksum",
        "segment.c",
        "return header->crc == journal_checksum(seed, header, header + 1) ? header : NULL;",
        "return seed ? header : NULL;",
        "journal_recovery",
    ),
    Mutant(
        "a record is valid in any place",
        "journal_record.h",
        "return header->position == position && ",
        "return ",
        "journal_recovery",
    ),
    Mutant(
        "synced_upto is too high",
        "journal.c",
        ".synced_upto = journal->synced,",
        ".synced_upto = journal->tail,",
        "journal_images",
    ),
    Mutant(
        "what nobody synced counts as damage",
        "recovery.c",
        "if (walk->survey_position < position || walk->survey_synced <= position)\n            return 0;",
        "",
        "journal_images",
    ),
    Mutant(
        "damage counts as what nobody synced",
        "recovery.c",
        "if (walk->survey_position < position || walk->survey_synced <= position)\n            return 0;",
        "return 0;",
        "journal_recovery",
    ),
    Mutant(
        "what is valid behind the end is not removed",
        "recovery_cut.c",
        "error = rewrite(cut, fd, buffer, true, cut->end->place.offset, cut->ends[0]);",
        "error = 0;",
        "journal_recovery",
    ),
    Mutant(
        "segments behind the end are not removed",
        "recovery_cut.c",
        "error = segment_retire(journal->files, journal->directory, segment->number, 0);",
        "error = 0;",
        "journal_images",
    ),
    Mutant(
        "the name of a new segment is not synced",
        "segment.c",
        'journal_point(files, "prepare.sync_directory");\n    error = journal_sync_directory(files, directory);',
        'journal_point(files, "prepare.sync_directory");',
        "journal_images",
    ),
    Mutant(
        "a new segment is not synced",
        "segment.c",
        "error = journal_sync_file(files, fd);",
        "error = 0;",
        "journal_images",
    ),
    Mutant(
        "a spare is written to while the disk has it as a segment",
        "segment.c",
        "error = journal_sync_directory(files, directory);\n        if (!error)\n            return fd;",
        "error = 0;\n        if (!error)\n            return fd;",
        "journal_images",
    ),
    Mutant(
        "a segment that is not finished is used",
        "journal.c",
        "error = segment_is_ready(journal->files, journal->directory, journal->next_number);",
        "error = 0;",
        "journal",
    ),
    Mutant(
        "only the last segment is synced",
        "journal.c",
        "for (size_t i = journal->n_segments > 1 ? journal->n_segments - 2 : 0; i < journal->n_segments; i++) {\n"
        "        const struct segment",
        "for (size_t i = journal->n_segments - 1; i < journal->n_segments; i++) {\n        const struct segment",
        "journal_images",
    ),
    Mutant(
        "three segments wait for a sync",
        "journal.c",
        "if (journal->n_segments > 1 && end_of(last_segment(journal) - 1) > journal->synced)\n        return -EAGAIN;",
        "",
        "journal",
    ),
    Mutant(
        "what came in beside a sync counts as synced",
        "journal.c",
        "journal->synced = sync->upto;",
        "journal->synced = journal->tail;",
        "journal_images",
    ),
    Mutant(
        "a sync that failed is tried again",
        "journal.c",
        "        poison(journal, error);\n        return error;\n    }\n    if (!journal->poisoned",
        "        return error;\n    }\n    if (!journal->poisoned",
        "journal",
    ),
    Mutant(
        "a write that failed does not poison",
        "journal.c",
        "            return poison(journal, error);",
        "            return error;",
        "journal_faults",
    ),
    Mutant(
        "a short write is not continued",
        "journal_files.c",
        "        from += written;\n        offset += (uint64_t)written;\n        size -= (size_t)written;",
        "        size = 0;",
        "journal_faults",
    ),
    Mutant(
        "a roll that fails has rolled",
        "journal.c",
        "        error = make_next(journal);\n    if (error)",
        "        error = make_next(journal);\n    journal->next_number++;\n    if (error)",
        "journal_faults",
    ),
    Mutant(
        "the header comes before the body and says nothing of it",
        "journal_record.h",
        "    return crc32c(crc, body, header->size);",
        "    return body ? crc : 0;",
        "journal_images",
    ),
    Mutant(
        "nothing takes the place of who told damage from the end",
        "recovery_cut.c",
        "        error = write_witness(cut);\n",
        "        error = 0;\n",
        "journal_recovery",
    ),
    Mutant(
        "a page that was not written is not written again",
        "recovery_cut.c",
        "error = rewrite(cut, fd, buffer, false, from, to);",
        "error = 0;",
        "journal_images",
    ),
]


def run(place: Path, program: str) -> subprocess.CompletedProcess[str]:
    core = [place / name for name in CORE] + sorted(place.glob("journal*.c")) + sorted(place.glob("recovery*.c"))
    sources = [str(path) for path in [place / "tests" / f"test_{program}.c", *core]]
    compiler = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-g", "-pthread", "-D_FILE_OFFSET_BITS=64"]
    subprocess.run([*compiler, "-o", str(place / program), *sources], check=True)
    return subprocess.run([str(place / program)], capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the C core and its tests."""
    shutil.copytree(NATIVE, tmp_path / "native")
    return tmp_path / "native"


@pytest.mark.parametrize("program", sorted({mutant.program for mutant in MUTANTS}))
def test_nothing_fails_where_nothing_is_broken(place: Path, program: str) -> None:
    done = run(place, program)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_noticed(place: Path, mutant: Mutant) -> None:
    file = place / mutant.file
    source = file.read_text()
    assert source.count(mutant.old) == 1, f"{mutant.file} has changed: find the place of {mutant.name!r} again"
    file.write_text(source.replace(mutant.old, mutant.new))
    done = run(place, mutant.program)
    assert done.returncode != 0, f"test_{mutant.program} does not notice that {mutant.name}:\n{done.stdout}"
