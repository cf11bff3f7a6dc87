"""Fuzzes one face: `python tests/fuzz/fuzz.py text --seconds 20`. Exit 1 and a file in build/fuzz/ for what breaks it.

With atheris the search is led by what code an input reaches. Where there is no atheris for this Python, inputs of the
corpus are changed and joined at random, which finds less, and is said.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
FOUND = HERE.parent.parent / "build" / "fuzz"
MAX_INPUT_BYTES = 4096
_TIMEOUT_S = 20

sys.path.insert(0, str(HERE))

try:
    import atheris
except ImportError:
    atheris = None


def main() -> int:
    """One face, for so long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("face", choices=("binary", "json", "text"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    chosen = parser.parse_args()
    corpus = HERE / "corpus" / chosen.face
    (FOUND / chosen.face).mkdir(parents=True, exist_ok=True)
    if atheris is None:
        print(f"{chosen.face}: no atheris for this Python; mutating the corpus at random", flush=True)
        return mutate(chosen.face, corpus, chosen.seconds, chosen.seed or time.time_ns())
    with atheris.instrument_imports(include=["agentd"]):
        import connection
    options = [
        f"-max_total_time={chosen.seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={_TIMEOUT_S}",
        "-rss_limit_mb=2048",
    ]
    options += [f"-seed={chosen.seed}", f"-artifact_prefix={FOUND}/", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup(
        [sys.argv[0], *options, str(FOUND / chosen.face), str(corpus)],
        lambda data: connection.converse(chosen.face, data),
    )
    atheris.Fuzz()  # does not come back
    return 0


def mutate(face: str, corpus: Path, seconds: int, seed: int) -> int:
    """Random changes of what is known."""
    import connection

    chance = random.Random(seed)
    seeds = [path.read_bytes() for path in sorted(corpus.iterdir())]
    until = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < until:
        data = changed(chance, seeds)
        signal.alarm(_TIMEOUT_S)  # ends the process: what takes so long goes on for ever
        try:
            connection.converse(face, data)
        except Exception:
            broken = FOUND / f"crash-{face}-{seed}-{runs}"
            broken.write_bytes(data)
            print(f"{broken} breaks it:", file=sys.stderr)
            raise
        runs += 1
    signal.alarm(0)
    print(f"{face}: {runs} inputs")
    return 0 if runs else 1


def changed(chance: random.Random, seeds: list[bytes]) -> bytes:
    """One input, made of others."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0 if data:
                data[place % len(data)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 1:
                data[place:place] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                del data[place : place + chance.randrange(1, 17)]
            case 3:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                data[place:place] = other[start : start + chance.randrange(1, 200)]
            case _:
                data += chance.choice(seeds)[1:]
    return bytes(data[:MAX_INPUT_BYTES])


if __name__ == "__main__":
    sys.exit(main())
