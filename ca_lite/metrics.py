"""Prometheus metrics: Fulcio's names for metrics that Fulcio has, `ca_lite_*` for the rest."""

from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric, UntypedMetricFamily
from prometheus_client.registry import Collector

_LATENCY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class NewCertificates(Collector):
    """`fulcio_new_certs`. The client library's counter would append `_total`; Fulcio's dashboards use the bare name."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = Lock()

    def increment(self) -> None:
        """Count one issued certificate."""
        with self._lock:
            self._count += 1

    def collect(self) -> Iterator[Metric]:
        """Metric family for a scrape."""
        yield UntypedMetricFamily("fulcio_new_certs", "Certificates issued since start", value=self._count)


class CaMetrics:
    """One registry per server, so that tests can run several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.new_certificates = NewCertificates()
        self.registry.register(self.new_certificates)
        labels = ("code", "method")
        self.latency = Histogram(
            "fulcio_api_latency", "Seconds per API request", labels, registry=self.registry, buckets=_LATENCY
        )
        self.requests = Counter("http_requests", "HTTP requests", labels, registry=self.registry)
        build = Gauge("fulcio_build_info", "Version of this program", ("version",), registry=self.registry)
        build.labels(version("signwatch")).set(1)
        self.rejected = Counter(
            "ca_lite_rejected", "Requests answered with an error, by reason", ("reason",), registry=self.registry
        )
        self.ct_seconds = Histogram(
            "ca_lite_ct_append_seconds", "Seconds to enter a precertificate", registry=self.registry, buckets=_LATENCY
        )
        self.timestamps = Counter("ca_lite_timestamps", "Timestamps made", registry=self.registry)
        self._expiry = Gauge(
            "ca_lite_certificate_expiry_timestamp_seconds",
            "When a certificate of the CA itself ends",
            ("chain",),
            registry=self.registry,
        )

    def show_expiry(self, chain: str, at: datetime) -> None:
        """Set the expiry metric to the earliest end of validity in a chain."""
        self._expiry.labels(chain).set(at.timestamp())
