"""The command line: argument parsing and printing, nothing else. Exit status 0 fine, 1 a check failed, 2 bad input.

What a command needs is imported inside it, so that help is quick.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.errors import HwsimError, InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from hwsim.device import Device
    from hwsim.job import Job
    from hwsim.serving.asked import Outcome, Watch
    from hwsim.trace import Trace

PIPED_WIDTH = 200  # columns of tables that no terminal limits, so that names stay whole for those who search them

app = typer.Typer(
    name="hwsim",
    help="Simulate LLM, MoE, convolutional and spiking networks on hardware accelerators.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ModelArg = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name of `hwsim list models`, a config.json or an .onnx.", show_default=False)
]
ArchArg = Annotated[
    str, typer.Argument(metavar="ARCH", help="A name of `hwsim list arch`, a file, or 4x-NAME.", show_default=False)
]
Archs = Annotated[list[str], typer.Argument(metavar="ARCH...", help="Two or more; ratios are to the first.", show_default=False)]


def _whole(typed: str | int) -> int:
    """A whole number as typed (or a default); what range makes sense is for the job to say."""
    if not re.fullmatch(r"[+-]?\d{1,18}", str(typed)):
        raise typer.BadParameter(f"{typed!r:.40}; accepted: a whole number")
    return int(typed)


def _number(typed: str | float) -> float:
    """A number as typed; what range makes sense is for others to say."""
    try:
        return float(typed)
    except ValueError:
        raise typer.BadParameter(f"{typed!r:.40}; accepted: a number") from None


Phase = Annotated[str, typer.Option(help="prefill, decode, generate or mixed; train for networks of events.")]
Batch = Annotated[int, typer.Option(parser=_whole, metavar="N", help="Sequences.")]
Prompt = Annotated[int, typer.Option(parser=_whole, metavar="N", help="Tokens in (for decode: tokens in the cache).")]
Output = Annotated[int, typer.Option(parser=_whole, metavar="N", help="Tokens out, for generate.")]
Mixed = Annotated[str, typer.Option(metavar="NEW:CONTEXT[*N],...", help="Sequences of phase mixed, e.g. 512:0,1:2048*31.")]
Policy = Annotated[
    str | None, typer.Option(help="fastest, op-b[:ridge=N], pin:unit=NAME ... Default: the device's.", show_default=False)
]
Policies = Annotated[
    list[str] | None, typer.Option("--policy", help="As for run; again for each policy to compare.", show_default=False)
]
Parallel = Annotated[
    str | None,
    typer.Option(help="auto, ep, et, or tp=,pp=,dp=,ep=,microbatches=. Default: the device's.", show_default=False),
]
Weights = Annotated[
    str | None, typer.Option(help="Weight format, e.g. fp8 or int4_g128. Default: the config's.", show_default=False)
]
Head = Annotated[str | None, typer.Option(help="Format of embedding and LM head. Default: the config's.", show_default=False)]
Activations = Annotated[
    str | None, typer.Option(help="Format that linear layers read. Default: the config's.", show_default=False)
]
Kv = Annotated[str | None, typer.Option(help="KV cache format. Default: the config's.", show_default=False)]
Routing = Annotated[str, typer.Option(help="Expert choice: balanced, uniform or zipf:s=1.2.")]
Mla = Annotated[str, typer.Option(help="MLA of decode and prefill: auto, absorbed or expanded.")]
Seed = Annotated[
    int | None,
    typer.Option(parser=_whole, metavar="N", help="Draw expert choice with this seed, not expected values.", show_default=False),
]
Stack = Annotated[
    str | None,
    typer.Option(help="Whose kernels a measured GPU runs: vllm, sglang, trtllm ... Default: all pooled.", show_default=False),
]
Software = Annotated[
    str | None,
    typer.Option(help="Host that launches kernels: eager, vllm, sglang, trtllm, any. Default: none.", show_default=False),
]
Quirks = Annotated[
    str | None,
    typer.Option(
        help="as-published: charge an array as its paper's simulator does; or none. Default: the device's.", show_default=False
    ),
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a device number.", show_default=False)]
Report = Annotated[
    Path | None, typer.Option(metavar="FILE.html", help="Write one self-contained HTML report.", show_default=False)
]
Perfetto = Annotated[
    Path | None, typer.Option(metavar="FILE.json", help="Write a trace for ui.perfetto.dev.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

Trace_ = Annotated[
    Path | None,
    typer.Option(
        "--requests",
        metavar="FILE",
        help="CSV or JSONL with prompt_tokens, output_tokens, arrival_s (without it: lengths for --rate or --concurrency).",
        show_default=False,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(parser=_number, metavar="R", help="Requests per second; stretches the gaps of a trace.", show_default=False),
]
Concurrency = Annotated[
    int | None,
    typer.Option(parser=_whole, metavar="N", help="Closed loop: N requests are always under way.", show_default=False),
]
NumRequests = Annotated[
    int | None,
    typer.Option(
        parser=_whole, metavar="N", help="Default: 1000 drawn ones, 4000 for a search, or all of the file.", show_default=False
    ),
]
Arrivals = Annotated[str | None, typer.Option(help="poisson, gamma:cv=2 or constant. Default: poisson.", show_default=False)]
PromptDist = Annotated[
    str | None,
    typer.Option(
        help="Tokens in: fixed:N, gaussian:mean=M,sd=S, lognormal:..., empirical:FILE. Default: gaussian:mean=1024,sd=256.",
        show_default=False,
    ),
]
OutputDist = Annotated[
    str | None, typer.Option(help="Tokens out, written the same way. Default: gaussian:mean=256,sd=64.", show_default=False)
]
Scheduler = Annotated[str | None, typer.Option(help="chunked, mixed or prefill-first. Default: chunked.", show_default=False)]
Chunked = Annotated[
    bool | None,
    typer.Option(
        "--chunked-prefill/--no-chunked-prefill",
        help="Another way to say --scheduler chunked or prefill-first.",
        show_default=False,
    ),
]
MaxSeqs = Annotated[int, typer.Option(parser=_whole, metavar="N", help="Sequences of a step, at most.")]
MaxTokens = Annotated[int, typer.Option(parser=_whole, metavar="N", help="Tokens of a step, at most.")]
Block = Annotated[int, typer.Option(parser=_whole, metavar="N", help="Tokens of a block of the KV cache.")]
KvFraction = Annotated[
    float, typer.Option(parser=_number, metavar="F", help="Part of the memory for weights, activations and KV cache.")
]
PrefixCaching = Annotated[
    bool,
    typer.Option(
        "--prefix-caching/--no-prefix-caching",
        help="Do not compute again what the cache holds of a prompt (prefix_cached_tokens) or of a preempted sequence.",
    ),
]
Replicas = Annotated[int, typer.Option(parser=_whole, metavar="N", help="Copies of ARCH that share the requests.")]
Router = Annotated[str, typer.Option(help="Which replica takes a request: round-robin or least-loaded.")]
Disaggregate = Annotated[
    str | None,
    typer.Option(metavar="P:D", help="P replicas for prompts and D for decoding, instead of --replicas.", show_default=False),
]
HostName = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="NAME",
        help="Whose host overheads: vllm, sglang, trtllm, any, eager or none. Default: the stack's.",
        show_default=False,
    ),
]
Slo = Annotated[
    str | None,
    typer.Option(
        metavar="ttft=2s,tpot=50ms",
        help="Bounds on ttft, tpot, e2e or queue: goodput under them; without any load, the highest rate that keeps them.",
        show_default=False,
    ),
]
SloPart = Annotated[
    float | None,
    typer.Option(
        parser=_number, metavar="F", help="Part of the requests that has to keep --slo. Default: 0.99.", show_default=False
    ),
]
Search = Annotated[bool, typer.Option("--capacity", help="Search the highest rate that keeps --slo as well.")]
ServedRouting = Annotated[
    str | None,
    typer.Option(
        help="Expert choice: balanced, uniform or zipf:s=1.2; with --seed it is drawn. Default: uniform, not drawn.",
        show_default=False,
    ),
]
ServedSeed = Annotated[
    int | None,
    typer.Option(
        parser=_whole,
        metavar="N",
        help="Of arrivals and lengths, and with --routing of expert choice. Default: 0.",
        show_default=False,
    ),
]
Rows = Annotated[
    Path | None, typer.Option("--table", metavar="FILE.csv|FILE.parquet", help="Write a row per request.", show_default=False)
]


@app.command()
def run(
    model: ModelArg, arch: ArchArg, phase: Phase = "generate", batch: Batch = 1, prompt: Prompt = 1024, output: Output = 128,
    sequences: Mixed = "", policy: Policy = None, parallel: Parallel = None, weights: Weights = None,
    head: Head = None, activations: Activations = None, kv: Kv = None, routing: Routing = "uniform", mla: Mla = "auto",
    seed: Seed = None, stack: Stack = None, host: Software = None, quirks: Quirks = None, set_: Set = None, report: Report = None,
    perfetto: Perfetto = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Simulate one model on one device: latency, energy and where they go."""
    job = _job(
        sequences, set_, phase=phase, batch=batch, prompt=prompt, output=output, policy=policy, parallel=parallel,
        weights=weights, head=head, activations=activations, kv=kv, routing=routing, mla=mla, seed=seed, stack=stack, host=host,
        quirks=quirks,
    )  # fmt: skip
    runs = _runs(model, [arch], job)
    _write(runs, job, report, perfetto)
    if as_json:
        _print_json(runs[0][0].to_dict())
        return
    from hwsim.report.tables import tiered
    from hwsim.report.text import ops_table, summary_table, tiers_table

    trace = runs[0][0]
    _print(summary_table(runs), *([tiers_table(trace)] if tiered(trace) else []), ops_table(trace))
    _print_notes(runs)
    _print_written(report, perfetto)


@app.command()
def compare(
    model: ModelArg, archs: Archs, phase: Phase = "generate", batch: Batch = 1, prompt: Prompt = 1024, output: Output = 128,
    sequences: Mixed = "", policy: Policies = None, parallel: Parallel = None, weights: Weights = None,
    head: Head = None, activations: Activations = None, kv: Kv = None, routing: Routing = "uniform", mla: Mla = "auto",
    seed: Seed = None, stack: Stack = None, host: Software = None, quirks: Quirks = None, set_: Set = None, report: Report = None,
    perfetto: Perfetto = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Simulate one model on several devices, under several policies; ratios are to the first."""
    job = _job(
        sequences, set_, phase=phase, batch=batch, prompt=prompt, output=output, policy=None, parallel=parallel,
        weights=weights, head=head, activations=activations, kv=kv, routing=routing, mla=mla, seed=seed, stack=stack, host=host,
        quirks=quirks,
    )  # fmt: skip
    runs = _compared(model, archs, policy or [None], job)
    _write(runs, job, report, perfetto)
    if as_json:
        first = runs[0][0]
        ratios = [{"speedup": first.latency_s / t.latency_s, "energy_ratio": _ratio(t.energy_j, first.energy_j)} for t, _ in runs]
        _print_json({"runs": [trace.to_dict() | ratio for (trace, _), ratio in zip(runs, ratios, strict=True)]})
        return
    from hwsim.report.text import summary_table

    _print(summary_table(runs))
    _print_notes(runs)
    _print_written(report, perfetto)


@app.command()
def roofline(
    model: ModelArg, arch: ArchArg, phase: Phase = "decode", batch: Batch = 1, prompt: Prompt = 1024, sequences: Mixed = "",
    policy: Policy = None, parallel: Parallel = None, weights: Weights = None, head: Head = None, activations: Activations = None,
    kv: Kv = None, routing: Routing = "uniform", mla: Mla = "auto", seed: Seed = None, stack: Stack = None,
    quirks: Quirks = None, set_: Set = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write the figure.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Op/B of each op against the roof of the unit it was sent to."""
    job = _job(
        sequences, set_, phase=phase, batch=batch, prompt=prompt, output=1, policy=policy, parallel=parallel, weights=weights,
        head=head, activations=activations, kv=kv, routing=routing, mla=mla, seed=seed, stack=stack, quirks=quirks,
    )  # fmt: skip
    trace, device = _runs(model, [arch], job)[0]
    from hwsim.report.roofline import roofline_page, roofline_points

    if html is not None:
        from hwsim.files import write_text

        write_text(html, roofline_page(trace, device))
    if as_json:
        _print_json({"model": trace.model, "arch": trace.arch, "ops": roofline_points(trace, device)})
        return
    from hwsim.report.text import roofline_table

    _print(roofline_table(trace, device))
    _print_written(html)


@app.command()
def serve(
    model: ModelArg, arch: ArchArg, requests: Trace_ = None, rate: Rate = None, concurrency: Concurrency = None,
    num_requests: NumRequests = None, arrivals: Arrivals = None, prompt_dist: PromptDist = None, output_dist: OutputDist = None,
    scheduler: Scheduler = None, chunked_prefill: Chunked = None, max_seqs: MaxSeqs = 256, max_batched_tokens: MaxTokens = 8192,
    block: Block = 16, kv_fraction: KvFraction = 0.9, prefix_caching: PrefixCaching = True, replicas: Replicas = 1,
    router: Router = "round-robin", disaggregate: Disaggregate = None, host: HostName = None, slo: Slo = None,
    slo_part: SloPart = None, capacity: Search = False, seed: ServedSeed = None, policy: Policy = None, parallel: Parallel = None,
    weights: Weights = None, head: Head = None, activations: Activations = None, kv: Kv = None, routing: ServedRouting = None,
    mla: Mla = "auto", stack: Stack = None, set_: Set = None, table: Rows = None, report: Report = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Serve requests over time with continuous batching: latencies, throughput, goodput and capacity."""
    from hwsim.serving.asked import Load, outcome, read_goal, scheduler_of, settings
    from hwsim.serving.service import Service, read_pools

    job = _job(
        "", set_, policy=policy, parallel=parallel, weights=weights, head=head, activations=activations, kv=kv,
        mla=mla, stack=stack,
        routing="uniform" if routing is None else routing, seed=None if routing is None else seed,
    )  # fmt: skip
    service = Service(
        scheduler=scheduler_of(scheduler, chunked_prefill), max_seqs=max_seqs, max_batched_tokens=max_batched_tokens,
        kv_fraction=kv_fraction, block=block, prefix_caching=prefix_caching, replicas=replicas, router=router, host=host,
        disaggregate=read_pools(disaggregate) if disaggregate is not None else None, concurrency=concurrency,
    )  # fmt: skip
    load = Load(requests, rate, concurrency, num_requests, arrivals, prompt_dist, output_dist, seed or 0)
    goal = read_goal(slo, slo_part, capacity)
    if table is not None and table.suffix not in (".csv", ".parquet"):
        raise InputError(f"--table: {table}; accepted: a name that ends in .csv or .parquet")
    _check_outputs([table, report], [_file_of(model), _file_of(arch), *load.files()])
    with _watching() as watch:
        found = outcome(model, arch, load, service, job, goal, watch)
    _write_served(found, settings(load, service, job, goal), table, report)
    if as_json:
        _print_json(found.to_dict())
        return
    from hwsim.report.text import capacity_table, latency_table, served_table

    document = found.to_dict()
    _print(served_table(document), latency_table(document), *([capacity_table(document)] if found.capacity else []))
    for note in document["notes"]:
        typer.echo(f"note: {note}")
    _print_written(table, report)


@app.command()
def check(
    targets: Annotated[list[str] | None, typer.Argument(metavar="[SYSTEM | FILE.yaml]...", help="Default: every study.")] = None,
    as_json: AsJson = False,
) -> None:
    """Published against simulated, one line each; exit status 1 when a claims file is no longer true."""
    from hwsim.reproduce import check as check_claims

    result = check_claims(*targets or ())
    if as_json:
        _print_json(result.to_dict())
    else:
        from hwsim.report.text import check_table

        _print(check_table(result.to_dict()))
    if not result.ok:
        raise typer.Exit(1)


@app.command()
def validate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Measured tables.")],
    arch: Annotated[Path | None, typer.Option(metavar="DIR", help="Device files to look in first.")] = None,
    serving: Annotated[bool, typer.Option("--serving", help="Simulate serving_e2e too: about a second a row.")] = False,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Measured tables against the kernel models: the error of each table, device, stack and format."""
    from hwsim.fit.validate import points
    from hwsim.fit.validate import validate as validate_tables

    document = validate_tables(folder, arch, _say if serving else None)
    if report is not None:
        from hwsim.files import write_text
        from hwsim.report.predicted import predicted_page

        write_text(report, predicted_page(points(folder, arch), document))
    if as_json:
        _print_json(document)
        return
    from hwsim.report.text import validation_table

    _print(validation_table(document))
    _print_written(report)


def _say(text: str) -> None:
    """One line on a terminal, written over by the next; nothing elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text[:100]}")
        sys.stderr.flush()


@app.command()
def measure(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the tables go; none of them may be there yet.")],
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
) -> None:
    """Measure this machine with PyTorch: tables for `validate` and `fit`, in a minute or two (needs hwsim[measure])."""
    from hwsim.fit.measure.run import measure as measure_tables

    measure_tables(out, device, typer.echo)


@app.command()
def fit(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Files of measured rows.")],
    out: Annotated[Path, typer.Option(metavar="FILE.yaml", help="Where the `kernels:` of a device file go.")],
    generation: Annotated[str, typer.Option(metavar="NAME", help="Which GPUs, where the tables hold several generations.")] = "",
    arch: Annotated[Path | None, typer.Option(metavar="DIR", help="Device files to look in first.")] = None,
    pooled: Annotated[str, typer.Option(metavar="STACK,...", help="Also sets of any stack, on rows of these (any: all).")] = "",
    largest: Annotated[bool, typer.Option("--largest", help="Hold out the largest shapes instead.")] = False,
) -> None:
    """Fit the parameters of kernel models to measured tables, judged on GPUs or shapes that the fit does not see."""
    import yaml

    from hwsim.files import write_text
    from hwsim.fit.calibrate import calibrate

    if out.resolve() in {table.resolve() for table in tables}:
        raise InputError(f"--out: {out} is one of the tables; accepted: another file")
    found = calibrate(tables, generation, arch, pooled.split(",") if pooled else (), largest)
    write_text(out, yaml.safe_dump(found, sort_keys=False, width=120, default_flow_style=None))
    for family, sets in found["kernels"].items():
        for one in sets:
            typer.echo(f"{family} {one['stacks'][0]} {one['formats'][0]}: {one['fitted']}")
    _print_written(out)


@app.command(name="list")
def list_(
    folder: Annotated[str, typer.Argument(metavar="[models | arch | studies]", help="Default: all three.")] = "",
    as_json: AsJson = False,
) -> None:
    """Names that can be used."""
    from hwsim.catalogue import names

    if folder not in ("", "models", "arch", "studies"):
        raise InputError(f"list: {folder[:40]!r}; accepted: models, arch or studies")
    found = {name: names(name) for name in ([folder] if folder else ["models", "arch", "studies"])}
    if as_json:
        _print_json(found)
        return
    for name, entries in found.items():
        typer.echo("\n".join(entries) if folder else f"{name}\n  " + "\n  ".join(entries))


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="MODEL|ARCH")], as_json: AsJson = False) -> None:
    """Every number of a model or a device, with its source."""
    from hwsim.catalogue import describe

    facts = describe(name)
    if as_json:
        _print_json(facts)
        return
    from hwsim.report.text import facts_table

    _print(facts_table(facts))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hwsim {version('hwsim')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Simulate LLM, MoE, convolutional and spiking networks on hardware accelerators."""


def main() -> None:
    """Entry point: errors a user can mend are one line on stderr and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except HwsimError as error:
        _fail(str(error))
    except BrokenPipeError:  # whoever read has enough
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        _fail(f"output: cannot be written ({error.strerror})")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        # usage errors of the argument parser; anything else is a bug and keeps its stack trace
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message())
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str) -> None:
    lines = " ".join(message.split())
    sys.stderr.write(f"hwsim: {lines[:400]}\n")
    sys.exit(2)


def _job(sequences: str, changes: list[str] | None, **typed: Any) -> Job:
    """The options of a command as a Job."""
    from hwsim.job import Job

    return Job(sequences=_sequences(sequences), set=_changes(changes or []), **typed)


def _sequences(text: str) -> tuple[tuple[int, ...], ...]:
    """Read "512:0,1:2048*31"."""
    result: list[tuple[int, ...]] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*(\d{1,9}):(\d{1,9})(?:\*(\d{1,5}))?\s*", part)
        if match is None:
            raise InputError(f"--sequences: {part[:40]!r}; accepted: NEW:CONTEXT or NEW:CONTEXT*COUNT, e.g. 512:0,1:2048*31")
        result.append((int(match[1]), int(match[2]), int(match[3] or 1)))
    return tuple(result)


def _changes(pairs: list[str]) -> dict[str, object]:
    changes: dict[str, object] = {}
    for pair in pairs:
        path, sign, value = pair.partition("=")
        if not sign or not path.strip():
            raise InputError(f"--set: {pair[:60]!r}; accepted: PATH=VALUE, e.g. memories.hbm.bandwidth=4.8TB/s")
        changes[path.strip()] = value.strip()
    return changes


def _runs(model: str, archs: list[str], job: Job) -> list[tuple[Trace, Device]]:
    from hwsim.catalogue import load_device, load_model
    from hwsim.job import run as run_job

    network = load_model(model)
    devices = [job.configured(load_device(arch)) for arch in archs]
    return [(run_job(network, device, job), device) for device in devices]


def _compared(
    model: str, archs: list[str], policies: Sequence[str | None], job: Job
) -> list[tuple[Trace, Device]]:  # fmt: skip
    """Every device under every policy; where there are several policies, each run is named by its own."""
    from dataclasses import replace

    runs = []
    for arch in archs:
        for policy in policies:
            trace, device = _runs(model, [arch], replace(job, policy=policy))[0]
            runs.append((replace(trace, arch=f"{trace.arch} {policy}") if len(policies) > 1 else trace, device))
    return runs


def _write(runs: list[tuple[Trace, Device]], job: Job, report: Path | None, perfetto: Path | None) -> None:
    from hwsim.files import write_text

    if report is not None:
        from hwsim.report.html import html_report

        title = f"{runs[0][0].model} on {', '.join(trace.arch for trace, _ in runs)}"
        tokens = not any(row.phase in ("images", "inference", "train") for row in runs[0][0].rows)
        write_text(report, html_report(runs, title, job.settings(tokens)))
    if perfetto is not None:
        from hwsim.report.perfetto import perfetto as as_events

        write_text(perfetto, json.dumps(as_events([trace for trace, _ in runs])))


def _file_of(name: str) -> Path:
    """The file that MODEL or ARCH may be, 4x- left out."""
    return Path(re.sub(r"^\d+x-", "", name))


def _check_outputs(outputs: list[Path | None], inputs: list[Path]) -> None:
    """Refuse what cannot be written, or would be over what is read or written already; before anything long is done."""
    taken = {path.resolve(): "is read" for path in inputs}
    for path in filter(None, outputs):
        if path.resolve() in taken:
            raise InputError(f"{path}: {taken[path.resolve()]}; accepted: another file to write")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; accepted: a file name")
        there = next(one for one in path.resolve().parents if one.exists())
        if not there.is_dir():
            raise InputError(f"{path}: {there} is no folder; accepted: a file in a folder, which is made if need be")
        taken[path.resolve()] = "is written already"


def _write_served(found: Outcome, asked: Mapping[str, str], table: Path | None, report: Path | None) -> None:
    """The files of `hwsim serve`."""
    if table is not None:
        _write_table(found.served.table, table)
    if report is not None:
        from hwsim.files import write_text
        from hwsim.report.serving import serving_page

        write_text(report, serving_page(found, asked))


def _write_table(rows: pd.DataFrame, path: Path) -> None:
    """CSV or Parquet, by the name's ending."""
    from hwsim.files import write_bytes

    data = io.BytesIO()
    if path.suffix == ".csv":
        rows.to_csv(data, index=False)
    else:
        rows.to_parquet(data, index=False)
    write_bytes(path, data.getvalue())


@contextmanager
def _watching() -> Iterator[Watch | None]:
    """Follows runs with a bar on standard error, one after the other; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("")

        def watch(title: str, requests: int) -> Callable[[int], None]:
            bars.reset(bar, total=requests, description=title)
            return lambda more: bars.update(bar, advance=more)

        yield watch


def _print(*tables: Table) -> None:
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    with console.capture() as text:  # a console that prints by itself exits with 1 when the reader goes away
        for table in tables:
            console.print(table)
    sys.stdout.write(text.get())
    sys.stdout.flush()


def _print_notes(runs: list[tuple[Trace, Device]]) -> None:
    for note in dict.fromkeys(note for trace, _ in runs for note in trace.notes):
        typer.echo(f"note: {note}")


def _print_written(*paths: Path | None) -> None:
    for path in paths:
        if path is not None:
            typer.echo(f"wrote {path}")


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=1, allow_nan=False))


def _ratio(ours: float, first: float) -> float | None:
    return ours / first if first else None


if __name__ == "__main__":
    main()
