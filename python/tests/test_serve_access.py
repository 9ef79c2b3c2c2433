"""Who gets in to a server, and what clients and servers are refused."""

import socket

import pytest
from conftest import ROOT, VECTORS
from serving import pipeline

import prosampler
from prosampler import Pipeline, RemotePipeline, connect
from prosampler.torch import HardNegativeBatchSampler

TOKEN = "a-token-that-is-long-enough"


def test_only_who_has_the_token_gets_in(table, serve):
    server = serve(pipeline(table), token=TOKEN)
    for token in (None, "a-token-that-is-long-enougH"):
        with pytest.raises(prosampler.ServerError, match=f"`{server.uri}`: the token is missing or wrong"):
            connect(server.uri, token=token)
    with connect(server.uri, token=TOKEN) as stream:
        assert next(stream).step == 0
    with pytest.raises(prosampler.ConfigError, match="in the clear"):
        connect("http://192.0.2.1:8815", token=TOKEN)
    assert TOKEN not in repr(RemotePipeline(server.uri, token=TOKEN))


def test_tls_needs_a_certificate_that_the_client_knows(table, serve):
    certificate, key = (ROOT / "tests/data/tls" / name for name in ("cert.pem", "key.pem"))
    server = serve(pipeline(table), token=TOKEN, tls=(certificate, key))
    assert server.uri.startswith("https://")
    with connect(server.uri, token=TOKEN, ca_certificate=certificate) as stream:
        assert next(stream).step == 0
    with pytest.raises(prosampler.ServerError, match="certificate"):
        connect(server.uri, token=TOKEN)
    with pytest.raises(prosampler.FileError, match=r"no\.pem"):
        connect(server.uri, ca_certificate="no.pem")


@pytest.mark.timeout(60)
def test_no_server_is_an_error_and_no_wait():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    for use in (connect, lambda uri: HardNegativeBatchSampler(RemotePipeline(uri))):
        message = f"`{uri}`: cannot be reached .*start `prosampler serve`"
        with pytest.raises(prosampler.ServerError, match=message) as error:
            use(uri)
        assert isinstance(error.value, prosampler.Error)


@pytest.mark.parametrize(
    ("use", "kind", "part"),
    [
        (lambda uri: connect(uri, rank=1), prosampler.ConfigError, "rank is 1 of 1"),
        (lambda uri: connect(uri, rank=-1), prosampler.ConfigError, "rank is -1 of 1"),
        (lambda uri: connect(uri, prefetch=0), prosampler.ConfigError, "prefetch is 0"),
        (lambda uri: connect("nowhere"), prosampler.ConfigError, "is no uri of a server"),
        (lambda uri: connect(uri, state={"seed": 1}), prosampler.StateError, "this is no state"),
        (lambda uri: connect(uri, world_size=3), prosampler.ServerError, "3 ranks, and the server's"),
        (lambda _: Pipeline(VECTORS, source="a", resume={"seed": 1}).serve(), prosampler.ConfigError, "connect"),
        (lambda uri: RemotePipeline(uri).serve(), prosampler.ConfigError, "serves this pipeline already"),
        (
            lambda uri: RemotePipeline(uri).with_settings(walk={"batch_size": 8}),
            prosampler.ConfigError,
            "walk.batch_size=8 cannot be set here",
        ),
    ],
)
def test_what_cannot_be_is_said(table, serve, use, kind, part):
    server = serve(pipeline(table))
    with pytest.raises(kind, match=part):
        use(server.uri)


@pytest.mark.parametrize(
    ("options", "kind", "part"),
    [
        ({"address": "0.0.0.0:0"}, prosampler.ConfigError, "--token-file: is required"),
        ({"address": "localhost"}, prosampler.ConfigError, "give an IP address and a port"),
        ({"token": "short"}, prosampler.ConfigError, "can be guessed"),
        ({"tls": ("no.pem", "no.key")}, prosampler.FileError, r"cannot read `no\.pem`"),
    ],
)
def test_a_server_that_is_not_safe_or_not_possible_does_not_start(table, options, kind, part):
    with pytest.raises(kind, match=part):
        pipeline(table).serve(**{"address": "127.0.0.1:0", **options})
