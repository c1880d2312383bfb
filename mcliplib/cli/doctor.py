"""`mcliplib doctor`: is this machine ready?"""

import argparse
import json
from dataclasses import asdict
from typing import Any

from mcliplib import doctor


def register(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("doctor", help="check this machine and print the cure of each fault")
    parser.add_argument("--json", action="store_true", help="print a JSON list of findings")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line for each finding; 1 if something must be cured."""
    findings = doctor.examine()
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(map(line, findings)))
    return int(any(finding.state == "FAIL" for finding in findings))


def line(finding: doctor.Finding) -> str:
    """The finding as people read it."""
    cure = f"\n{'':19}cure: {finding.cure}" if finding.cure else ""
    return f"{finding.state:<4} {finding.name:<13} {finding.detail}{cure}"
