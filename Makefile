# `make demo` and `make test` set up all that they need.

.PHONY: cluster-demo demo docs-site test soak soak-case fuzz python-test setup width
.PHONY: bench bench-encode bench-graph bench-mining bench-quality bench-ranks bench-refresh bench-store bench-walk

## Streams hard-negative mini-batches from WordNet and says how hard they are.
demo: setup
	cargo run --release --quiet -- run pipelines/text.toml --step-ms 10

## Runs the tests of the library, with all its features.
test: setup
	./scripts/moto.sh
	cargo test --quiet --all-features

## Kills runs, damages files and makes disks fail for SECONDS (default 3600); docs/soak.md explains it. A run with the
## same SEED continues where that seed's last run stopped.
soak: setup
	./scripts/moto.sh
	PROSAMPLER_SOAK_SECONDS=$(or $(SECONDS),3600) PROSAMPLER_SOAK_SEED=$(or $(SEED),1) \
		cargo test --quiet --all-features --test soak -- --ignored --exact whole --nocapture

## Writes tables of all kinds, damages some, and reads them back for SECONDS (default 600).
fuzz:
	PROSAMPLER_SOAK_SECONDS=$(or $(SECONDS),600) PROSAMPLER_SOAK_SEED=$(or $(SEED),1) \
		cargo test --quiet --all-features --test soak -- --ignored --exact fuzz::whole --nocapture

## Repeats one damaged input by the name that `make soak` printed: CASE="parquet 1 4711".
soak-case: setup
	PROSAMPLER_SOAK_CASE="$(CASE)" \
		cargo test --quiet --all-features --test soak -- --ignored --exact inputs::case --nocapture

## Builds the Python package in .python/ and checks its types, style and tests. The first run fetches about 3 GB.
python-test:
	./scripts/python.sh

## Embeds, divides and trains on a cluster of Ray in this machine, without faults and with some, and compares the two.
cluster-demo:
	./scripts/python_env.sh
	VIRTUAL_ENV="$(CURDIR)/.python" PIP_QUIET=1 .python/bin/maturin develop --quiet --release
	.python/bin/python -W ignore examples/train/cluster.py

## Fetches ONNX Runtime's shared library, once.
setup:
	@./scripts/onnxruntime.sh

## Builds the documentation into target/site: the guide, and beside it the API (api/). The first run fetches MkDocs.
docs-site:
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features
	./scripts/site.sh

## Lists comments and lines of Markdown that are wider than 120 columns.
width:
	./scripts/width.sh

## Runs the benchmarks of every stage; each prints its figures at the end.
bench: bench-encode bench-graph bench-mining bench-ranks bench-refresh bench-store bench-walk

## Measures embedding against Python's onnxruntime and sentence-transformers, in one run.
bench-encode: setup
	./benches/peers/encode.sh

## Measures samples per second of the random walk against a walk with a hash set and without coverage, in one run.
bench-walk:
	cargo bench --quiet --bench walk

## Measures how hard mini-batches are and how many false negatives they have, for several M and α.
## ARGS="PIPELINE --plot FILE.svg" chooses the data set and draws its plot.
bench-quality: setup
	cargo bench --quiet --bench quality -- $(ARGS)

## Measures graph building against PyTorch and kNN libraries, in one run. ARGS="SECTION… --all" chooses the parts.
bench-graph:
	./benches/peers/graph.sh $(ARGS)

## Measures mining explicit negatives against sentence-transformers, with faiss and without.
## ARGS="--rows N" chooses the size.
bench-mining:
	./benches/peers/mining.sh $(ARGS)

## Measures building a store and gathering from it against HF datasets, Lance and MosaicML, in one run.
## ARGS="--rows N" takes fewer rows.
bench-store:
	./benches/peers/store.sh $(ARGS)

## Measures what ranks share and what serving costs, against pyarrow, MosaicML and PyTorch's DataLoader, in one run.
## ARGS="speedup memory serve" chooses the parts, ARGS=--quick takes few rows, ARGS="--rows N" so many.
bench-ranks: setup
	./benches/peers/ranks.sh $(ARGS)

## Measures how long a trainer waits for its next mini-batch, idle and during a refresh.
bench-refresh:
	cargo bench --quiet --bench refresh
