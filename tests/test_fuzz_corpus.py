"""What the fuzzers once learned, and once found, stays found: every input of the corpus, on each run of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

from connection import FACES, converse  # noqa: E402

INPUTS = sorted(FUZZ.glob("corpus/*/*"))


@pytest.mark.parametrize("path", INPUTS, ids=[f"{path.parent.name}-{path.name}" for path in INPUTS])
def test_corpus(path: Path) -> None:
    converse(path.parent.name, path.read_bytes())


def test_every_face_has_a_corpus() -> None:
    assert {path.parent.name for path in INPUTS} == set(FACES)


@pytest.mark.parametrize("face", FACES)
def test_in_every_cut(face: str) -> None:
    """One byte at a time, and all at once."""
    for path in FUZZ.glob(f"corpus/{face}/*"):
        data = path.read_bytes()
        converse(face, b"\x00" + data[1:])
        converse(face, b"\xff" + data[1:])
