"""``tokentape simulate``: what a server would do with a stream of requests, without running one."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.sections import SectionedCommand, in_section, with_all

if TYPE_CHECKING:
    from tokentape.study.simulate.scheduler import Scheduler
    from tokentape.study.simulate.servers import Server
    from tokentape.study.simulate.streams import Stream
    from tokentape.study.slo import Slo

__all__ = ["command"]

_COUNT = click.IntRange(min=1)
_server = partial(in_section, "Server")
_schedule = partial(in_section, "Scheduler")
_arrivals = partial(in_section, "Arrivals")
_promise = partial(in_section, "Promise")

_OPTIONS = [
    _server("--on", "hardware", metavar="HARDWARE", help="Predict a model's steps on it: H100, `this`, a JSON file."),
    _server("--dtype", metavar="TYPE", help="float32, bfloat16, float16, float8, int8, float4, int4."),
    _server("--tensor-parallel", type=_COUNT, default=1, show_default=True, metavar="N", help="Devices."),
    _server("--efficiency", type=float, default=1.0, show_default=True, metavar="SHARE", help="Of the machine's peaks."),
    _server("--config", metavar="FILE", help="The model that a law of several models is asked for."),
    _server("--noise/--no-noise", default=True, help="Steps vary as those of the tape did. Default: they do."),
    _schedule(
        "--policy", default="chunked", show_default=True, metavar="NAME",
        help="chunked, prefill-first, decode-first, one-at-a-time.",
    ),
    _schedule("--max-seqs", type=_COUNT, default=256, show_default=True, metavar="N", help="Sequences that run at once."),
    _schedule("--max-batched-tokens", type=_COUNT, default=8192, show_default=True, metavar="N", help="Tokens of a step."),
    _schedule("--kv-tokens", type=_COUNT, metavar="N", help="Key-value memory. Default: what --on leaves, or no limit."),
    _schedule("--block-size", type=_COUNT, default=16, show_default=True, metavar="N", help="Tokens of a block of it."),
    _schedule("--watermark", type=float, default=0.0, show_default=True, metavar="SHARE", help="Of it, kept free."),
    _arrivals(
        "--arrivals", "kind", default="poisson", show_default=True, metavar="KIND",
        help="poisson, gamma, constant, azure:FILE, mooncake:FILE, tape:FILE.",
    ),
    _arrivals("--rate", metavar="R,R,...", help="Requests a second; of a file, its times are stretched. Several: a table."),
    _arrivals("--requests", type=_COUNT, metavar="N", help="At most so many. Default: 1000, or all of the file."),
    _arrivals("--duration", metavar="TIME", help="90s, 10m, 24h: a file is repeated until it is full."),
    _arrivals("--prompt-tokens", default="512", show_default=True, metavar="LENGTH", help="512, or lognormal:512,0.8."),
    _arrivals("--output-tokens", default="128", show_default=True, metavar="LENGTH", help="128, or uniform:8,256."),
    _arrivals("--burstiness", type=float, default=1.0, show_default=True, metavar="SHAPE", help="Of gamma: below 1, bursts."),
    _arrivals("--seed", type=int, default=0, show_default=True, metavar="N"),
    _promise("--slo", metavar="LIMITS", help="ttft=500ms,gap=50ms,e2e=10s: how many requests meet all of them."),
    _promise("--find-rate", is_flag=True, help="Search for the largest rate that keeps the promise."),
    _promise("--attained", type=float, default=0.9, show_default=True, metavar="SHARE", help="That has to meet --slo."),
    json_option,
]  # fmt: skip

EPILOG = """\b
Examples:
  tokentape simulate config.json --on h100 --efficiency 0.6 --rate 4 --slo ttft=500ms,gap=50ms
  tokentape simulate config.json --on h100 --arrivals azure:AzureLLMInferenceTrace_conv.csv --duration 24h
  tokentape simulate sweep.tape --rate 1,2,4,8 --max-seqs 8
  tokentape simulate served.tape --policy one-at-a-time --arrivals tape:served.tape --rate 3
  tokentape simulate step=8ms,sequence=20us,position=40ps,token=20us --slo ttft=500ms --find-rate
"""


@click.command("simulate", cls=SectionedCommand, epilog=EPILOG)
@click.argument("server")
@with_all(*_OPTIONS)
def command(server: str, as_json: bool, **given: Any) -> None:
    """Say what a continuous-batching server would do with a stream of requests, without running one.

    SERVER tells how long its steps take: a tape of a sweep (its law is fitted), a tape of an endpoint under load (what its
    clients saw), the configuration of a model with --on, or coefficients such as step=8ms,token=20us.
    """
    from tokentape.study.simulate.rates import largest_rate, simulate_rates
    from tokentape.study.simulate.simulation import simulate
    from tokentape.views.screen import Screen
    from tokentape.views.simulation_text import limit_text, rates_text, simulation_text

    scheduler, slo, rates = _scheduler(given), _slo(given), _rates(given["rate"])
    stream = _stream(given, rates)
    found = _server_told(server, scheduler, given)
    screen = Screen.of(sys.stdout)
    if given["find_rate"]:
        assert slo is not None
        start = stream.rate or stream.arrivals(stream.rate or 1.0).rate or 1.0
        limit = largest_rate(
            found, stream.arrivals, scheduler, slo, start=start, attained=given["attained"], seed=given["seed"]
        )
        _print(as_json, limit_text(limit, screen), server=server, limit=limit.as_dict())
    elif len(rates) > 1:
        every = simulate_rates(found, stream.arrivals, rates, scheduler, slo, given["seed"])
        told = [one.as_dict() for one in every] if as_json else []
        _print(as_json, rates_text(every, screen, given["attained"]), server=server, simulations=told)
    else:
        one = simulate(found, stream.arrivals(), scheduler, slo=slo, seed=given["seed"])
        _print(as_json, simulation_text(one, screen), server=server, simulation=one.as_dict() if as_json else {})


def _print(as_json: bool, text: str, **fields: Any) -> None:
    print_document(document("simulate", **fields)) if as_json else print_lines(text)


def _scheduler(given: dict[str, Any]) -> Scheduler:
    from tokentape.study.simulate.scheduler import Scheduler

    names = ("policy", "max_seqs", "max_batched_tokens", "kv_tokens", "block_size", "watermark")
    return Scheduler(**{name: given[name] for name in names})


def _slo(given: dict[str, Any]) -> Slo | None:
    from tokentape.errors import UsageError
    from tokentape.study.slo import parse_slo

    if given["slo"] is not None:
        return parse_slo(given["slo"])
    if given["find_rate"]:
        raise UsageError(
            "--find-rate without --slo", why="a rate is judged by objectives", fix="--slo ttft=500ms,gap=50ms"
        )
    return None


def _rates(text: str | None) -> list[float]:
    from tokentape.errors import UsageError

    try:
        return [] if text is None else [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"--rate {text}", why="a rate is a number of requests a second", fix="--rate 2 or 1,2,4"
        ) from None


def _stream(given: dict[str, Any], rates: list[float]) -> Stream:
    from tokentape.experiment.amounts import seconds
    from tokentape.study.simulate.streams import Stream

    return Stream(
        kind=given["kind"],
        rate=rates[0] if rates else None,
        n=given["requests"],
        duration_ns=None if given["duration"] is None else round(seconds(given["duration"], "--duration") * 1e9),
        n_prompt=given["prompt_tokens"],
        n_output=given["output_tokens"],
        burstiness=given["burstiness"],
        seed=given["seed"],
    )


def _server_told(server: str, scheduler: Scheduler, given: dict[str, Any]) -> Server:
    from tokentape.study.simulate.servers import server_of

    names = ("hardware", "dtype", "tensor_parallel", "config", "efficiency", "noise")
    return server_of(server, scheduler, **{name: given[name] for name in names})
