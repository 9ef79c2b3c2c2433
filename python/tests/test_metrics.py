"""What a run tells Prometheus, read by Prometheus's own parser, against the stream itself."""

import urllib.request

from conftest import VECTORS, free_port
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import prosampler


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


def test_prometheus_reads_what_the_stream_says(table):
    port = free_port()
    pipeline = prosampler.Pipeline(data=table, metrics={"address": f"127.0.0.1:{port}"}, **VECTORS)
    with pipeline.start() as stream:
        mini_batches = [next(stream) for _ in range(7)]
        told = scrape(port)
        last = mini_batches[-1]
        assert told["prosampler_mini_batches_total",] == 7
        assert told["prosampler_samples_total",] == sum(len(of.ids) for of in mini_batches)
        assert told["prosampler_similarity",] == last.similarity
        assert told["prosampler_staleness",] == last.staleness
        assert told["prosampler_graph_version",] == last.graph_version
        assert told["prosampler_data_set_samples",] == table.num_rows
        assert told["prosampler_refreshes_total", "published"] == 0
        assert told["prosampler_info", prosampler.__version__] == 1
