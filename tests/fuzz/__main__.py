"""Fuzz the decoders of untrusted bytes, guided by coverage (atheris), one target after the other.

    python -m tests.fuzz --seconds 600 --seed 7 --only command

Each target is a process of its own, because libFuzzer ends its process; what it finds is written to a file that
`--replay FILE` gives to the target again.
"""

import argparse
import importlib
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all targets, or one. Returns 0 when nothing was found."""
    parser = argparse.ArgumentParser(description="Fuzz the decoders of records, tokens and headers.")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--only", help="one target")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    parser.add_argument("--replay", help="a file that was found; with --only")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(2**31 - 1) + 1 if options.seed is None else options.seed
    if options.inside or options.replay:
        return _inside(options.only, options.seconds, seed, options.corpus, options.replay)
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - the other process imports it watched

    names = [options.only] if options.only else list(TARGETS)
    print(f"seed {seed}, {options.seconds // len(names)} s for each of {', '.join(names)}", file=sys.stderr)
    failed: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="orgs-fuzz-") as corpus:
            for number, content in enumerate(TARGETS[name][1]):
                (Path(corpus) / str(number)).write_bytes(content)
            command = [sys.executable, "-m", "tests.fuzz", "--inside", "--only", name, "--corpus", corpus]
            command += ["--seconds", str(options.seconds // len(names)), "--seed", str(seed)]
            if subprocess.run(command, check=False).returncode:
                failed.append(name)
    print(f"fuzz: {'found something in ' + ', '.join(failed) if failed else 'nothing found'}, seed {seed}")
    return 1 if failed else 0


def _inside(name: str, seconds: int, seed: int, corpus: str | None, replay: str | None) -> int:
    atheris: Any = importlib.import_module("atheris")  # only where the group `fuzz` is installed

    # What atheris 2.3 makes of the loop over LZ4 blocks crashes the interpreter: that module is fuzzed unguided.
    with atheris.instrument_imports(include=["org_events", "org_service"], exclude=["org_events.kafka.unpacking"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    options = (
        [replay]
        if replay
        else [corpus or "", f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=70000", "-keep_seed=1"]
    )
    atheris.Setup([sys.argv[0], *options, "-artifact_prefix=fuzz-", "-verbosity=0"], TARGETS[name][0])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
