"""Running the command line in this process: exit status, standard output, standard error."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any
from unittest import mock

from hwsim.cli import main


def hwsim(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", ["hwsim", *arguments]), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, out.getvalue(), err.getvalue()


def document(*arguments: str) -> Any:
    """What `--json` prints: one document on standard output and nothing on standard error."""
    status, out, err = hwsim(*arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def refused(*arguments: str) -> str:
    """The one line of an input error; the exit status is 2 and nothing else was printed."""
    status, out, err = hwsim(*arguments)
    assert (status, out) == (2, ""), err
    assert err.startswith("hwsim: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err
