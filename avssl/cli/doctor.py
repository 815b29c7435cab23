"""`avssl-doctor`: what works on this machine and why something does not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

from avssl import __version__
from avssl.cli.common import Parser, print_json, run

if TYPE_CHECKING:
    from avssl.doctor import Check

_DESCRIPTION = """\
Say which versions, decoders and devices are here, test them on a clip made on the spot, and name the cure of what
does not work."""

_EPILOG = """\
examples:
  avssl-doctor
  avssl-doctor --json > doctor.json      # to attach to a report of a problem

marks: ok; warn = something optional does not work; missing, failed = something needed does not.
exit code: 0 everything needed works, 1 something needed does not, 2 wrong use."""


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _main(argv: list[str]) -> int:
    parser = Parser(prog="avssl-doctor", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments = parser.parse_args(argv)

    from avssl.doctor import examine, is_healthy

    checks: list[Check] = []
    for check in examine():
        if not arguments.json:
            if not checks or checks[-1].group != check.group:
                print(check.group)
            print(_line(check), flush=True)
        checks.append(check)
    healthy = is_healthy(checks)
    if arguments.json:
        print_json({"avssl": __version__, "healthy": healthy, "checks": [asdict(check) for check in checks]})
    elif healthy:
        print("everything needed works")
    else:
        bad = [check.name for check in checks if check.status in ("missing", "failed")]
        print(f"not working: {', '.join(bad)}")
    return 0 if healthy else 1


def _line(check: Check) -> str:
    line = f"  {check.status:8}{check.name:20}{check.detail}"
    return f"{line}\n{'':10}cure: {check.cure}" if check.cure and check.status != "ok" else line
