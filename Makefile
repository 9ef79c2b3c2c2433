# `make demo` and `make test` do all of their own set-up.

.PHONY: demo test soak soak-case fuzz python-test setup bench bench-encode bench-graph bench-quality bench-refresh bench-store bench-walk

## Streams hard-negative mini-batches out of WordNet, and says how hard they are.
demo: setup
	cargo run --release --quiet -- run pipelines/text.toml --step-ms 10

## Passes the tests.
test: setup
	./scripts/moto.sh
	cargo test --quiet --all-features

## Kills, damage and failing disks for SECONDS, 3600 by default: docs/soak.md. The run of a SEED goes on where it was.
soak: setup
	PROSAMPLER_SOAK_SECONDS=$(or $(SECONDS),3600) PROSAMPLER_SOAK_SEED=$(or $(SEED),1) \
		cargo test --quiet --all-features --test soak -- --ignored --exact whole --nocapture

## Tables of all kinds, written, damaged and read back for SECONDS, 600 by default.
fuzz:
	PROSAMPLER_SOAK_SECONDS=$(or $(SECONDS),600) PROSAMPLER_SOAK_SEED=$(or $(SEED),1) \
		cargo test --quiet --all-features --test soak -- --ignored --exact fuzz::whole --nocapture

## One damaged input again, as `make soak` has named it: CASE="parquet 1 4711".
soak-case: setup
	PROSAMPLER_SOAK_CASE="$(CASE)" \
		cargo test --quiet --all-features --test soak -- --ignored --exact inputs::case --nocapture

## The Python package in .python/, with its types, its style and its tests; the first time fetches about 3 GB.
python-test:
	./scripts/python.sh

## Fetches ONNX Runtime's shared library, once.
setup:
	@./scripts/onnxruntime.sh

## All benchmarks; each ends with its figures.
bench: bench-encode bench-graph bench-refresh bench-store bench-walk

## Embedding speed against Python onnxruntime and sentence-transformers, in one run.
bench-encode: setup
	./benches/peers/encode.sh

## Samples a second of the random walk, against a hash set walk without coverage, in one run.
bench-walk:
	cargo bench --quiet --bench walk

## How hard mini-batches are and how many false negatives they have, over M and α. ARGS="PIPELINE --plot FILE.svg".
bench-quality: setup
	cargo bench --quiet --bench quality -- $(ARGS)

## Graph building against PyTorch and kNN libraries, in one run. ARGS="SECTION… --all" chooses.
bench-graph:
	./benches/peers/graph.sh $(ARGS)

## Building a store and gathering from it, against HF datasets, Lance and MosaicML, in one run. ARGS="--rows N" for fewer.
bench-store:
	./benches/peers/store.sh $(ARGS)

## How long a trainer waits for its next mini-batch, idle and during a refresh.
bench-refresh:
	cargo bench --quiet --bench refresh
