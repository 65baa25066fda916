"""The command line: starts things, and speaks to a server as any other client would.

It may import every room, and knows none of their rules. Heavy parts are imported inside the
commands that need them: ``calotype --help`` has to be quick.

Exit codes: 0 done, 1 failed, 2 wrong use. Results go to stdout, all else to stderr.
"""

from __future__ import annotations

import signal
import sys

import typer

from calotype.cli import (
    again,
    bench,
    certificates,
    demo,
    doctor,
    engines,
    generate,
    jobs,
    keys,
    log,
    logs,
    models,
    pictures,
    plan,
    reports,
    review,
    safety,
    serve,
    simulate,
    strikes,
    tenants,
    trace,
    verify,
    watermark,
    webhooks,
)
from calotype.cli.console import exit_code, say_error
from calotype.core.errors import CalotypeError

app = typer.Typer(
    name="calotype",
    help="Calotype: image generation for your team, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve.serve)
app.command()(generate.generate)
app.command()(again.vary)
app.command()(again.upscale)
app.command()(demo.demo)
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(engines.app, name="engines")
app.command()(verify.verify)
app.add_typer(log.app, name="log")
app.add_typer(certificates.app, name="certificates")
app.add_typer(pictures.app, name="pictures")
app.add_typer(pictures.links, name="links")
app.add_typer(watermark.app, name="watermark")
app.add_typer(webhooks.app, name="webhooks")
app.command()(doctor.doctor)
app.command()(logs.logs)
app.add_typer(bench.app, name="bench")
app.command()(simulate.simulate)
app.add_typer(plan.app, name="plan")
app.add_typer(trace.app, name="trace")
app.add_typer(safety.app, name="safety")
app.add_typer(review.app, name="review")
app.add_typer(strikes.app, name="strikes")
app.add_typer(reports.app, name="reports")


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with its code."""
    # A shell's background job inherits Ctrl-C as ignored; a command that waits has to end on it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app()
    except CalotypeError as error:
        say_error(error.detail)
        sys.exit(exit_code(error))
