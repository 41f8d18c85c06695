"""Exposition: the numbers of one process, or of many, on one page in Prometheus' words."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from service.adapters.metrics.families import HISTOGRAMS

_SIGNED = {family.name for family in HISTOGRAMS if family.is_signed()}


def page(accept: str, *, directory: str, others: Sequence[Collector] = ()) -> tuple[bytes, str]:
    """The numbers of all processes that count into `directory`, and others: content, and its media type.

    Needs no Metrics in the process that asks. The gauges of processes that are gone are dropped first.
    """
    _forget_the_dead(directory)
    counted = MultiProcessCollector(None, path=directory)  # type: ignore[no-untyped-call]
    return exposed(counted, accept, others=others)


def exposed(numbers: Collector, accept: str, *, others: Sequence[Collector] = ()) -> tuple[bytes, str]:
    """These numbers as the caller accepts them: content, and its media type."""
    encode, media_type = choose_encoder(accept)
    return encode(_Exposable(numbers, *others)), media_type


class _Exposable:
    """Numbers, less the sums of values that may be negative: a sum that falls is no counter.

    Without a sum OpenMetrics allows no count either; the bucket `+Inf` says the same. The library leaves out
    the sum where it counts for one process, and neither where it counts for many.
    """

    def __init__(self, *numbers: Collector) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """The library's metrics, one by one."""
        for metric in chain.from_iterable(numbers.collect() for numbers in self._numbers):
            if metric.name in _SIGNED:
                left_out = metric.name + "_sum", metric.name + "_count"
                metric.samples = [sample for sample in metric.samples if sample.name not in left_out]
            yield metric


def _forget_the_dead(directory: str) -> None:
    files = (re.fullmatch(r"gauge_live[a-z]+_(\d+)\.db", name) for name in os.listdir(directory))
    for pid in {int(file[1]) for file in files if file}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with contextlib.suppress(FileNotFoundError):  # another scrape was faster
                mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]
        except PermissionError:
            continue  # somebody else's process, so alive
