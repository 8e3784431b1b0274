"""What is answered to which header."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from gpudaemon.export.negotiation import OPENMETRICS, TEXT, accepts_gzip, scrape_timeout, wants_openmetrics

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    + PROMETHEUS_2
)


def test_content_types_are_those_of_prometheus_client() -> None:
    assert (TEXT, OPENMETRICS) == (CONTENT_TYPE_PLAIN_0_0_4, CONTENT_TYPE_LATEST)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        (PROTOBUF_FIRST, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        ("application/openmetrics-text;version=1.0.0;escaping=dots", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=one", False),
        ("application/openmetrics-text;version=1.0.0;q=0", False),
        ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;q=0.9", False),
        ("text/plain;q=0.1, application/openmetrics-text;version=1.0.0 ; q=0.2", True),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", False),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", False),
    ],
)
def test_format(accept: str, openmetrics: bool) -> None:
    assert wants_openmetrics(accept) is openmetrics


words = (
    "application/openmetrics-text",
    "text/plain",
    "*/*",
    "version",
    "1.0.0",
    "q",
    "escaping",
    "dots",
    "nan",
)
tokens = st.sampled_from((*words, *";,=01² \x00", "9" * 400, "-1", "inf", ".."))


@given(st.one_of(st.text(), st.lists(tokens, max_size=30).map("".join)))
@example("application/openmetrics-text;version=1.x")
def test_any_accept_header_has_an_answer(accept: str) -> None:
    if wants_openmetrics(accept):
        assert "application/openmetrics-text" in accept.lower()


@pytest.mark.parametrize(
    ("header", "gzip"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip; q=0.001", True),
        ("gzip;q=nan", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("br, zstd", False),
        ("gzipped", False),
    ],
)
def test_compression(header: str, gzip: bool) -> None:
    assert accepts_gzip(header) is gzip


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 10.0),
        ("", 10.0),
        ("soon", 10.0),
        ("0", 10.0),
        ("-1", 10.0),
        ("nan", 10.0),
        ("inf", 10.0),
        ("1e9", 10.0),
        ("10", 9.5),
        ("60", 10.0),
        ("1", 0.9),
        ("0.1", 0.09),
    ],
)
def test_timeout(header: str | None, seconds: float) -> None:
    assert scrape_timeout(header, 10.0) == pytest.approx(seconds)


@given(st.one_of(st.text(), st.floats().map(str)))
def test_a_scrape_never_has_more_than_the_limit_nor_nothing(header: str) -> None:
    assert 0 < scrape_timeout(header, 10.0) <= 10.0
