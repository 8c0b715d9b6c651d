"""Runs a program of danlu's for the comparisons beside this file."""

import json
import subprocess
import sys


def rows(program, *arguments):
    """The values of the lines of JSON that it prints; this one ends with what the other says, where it fails."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]
