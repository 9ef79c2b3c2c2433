"""The Python side of `benches/graph`: other ways to a kNN graph, each on the threads it is given.

Reads a line a job, `PEER PATH DIMENSION ROWS K OUT ARGUMENTS…`; PATH holds ROWS × DIMENSION raw f32 of unit length.
Writes the ids of each row's neighbors to OUT, K raw i32 a row, nearest first and without the row itself, and answers
`SECONDS ROWS`: building and searching, without reading, writing and compiling. Fewer rows than asked for are a share,
to be scaled up.
"""

import importlib.metadata
import os
import sys
import time

import numpy as np

THREADS = int(os.environ["OMP_NUM_THREADS"])
# Seconds; as in measure.rs.
SHORT = 10


def torch_gather(vectors, k, candidates, share):
    """The paper's code: every row gathers M candidates of its own, drawn with duplicates and self."""
    import torch

    torch.set_num_threads(THREADS)
    vectors = torch.from_numpy(vectors)
    n, m = len(vectors), int(candidates)

    def run():
        # Folds of 128 rows rather than the code's N / 20: less memory, and no slower.
        kept = []
        for rows in torch.arange(max(1, int(n * float(share)))).split(128):
            drawn = torch.randint(n, (len(rows), m))
            scores = torch.bmm(vectors[drawn], vectors[rows].unsqueeze(2)).squeeze(2)
            kept.append(drawn.gather(1, scores.topk(k).indices))
        return torch.cat(kept).numpy()

    return run


def torch_shared(vectors, k, candidates, block):
    """A matrix product a block of rows: 1024 rows share M candidates."""
    import torch

    torch.set_num_threads(THREADS)
    vectors = torch.from_numpy(vectors)
    n, m = len(vectors), int(candidates)

    def run():
        ids = torch.empty((n, k), dtype=torch.int64)
        order, place = torch.randperm(n), torch.empty(n, dtype=torch.int64)
        place[order] = torch.arange(n)
        for rows in torch.randperm(n).split(int(block)):
            start = int(torch.randint(n - m + 1, ()))
            drawn = order[start : start + m]
            scores = vectors[rows] @ vectors[drawn].T
            own = place[rows] - start
            inside = ((own >= 0) & (own < m)).nonzero().squeeze(1)
            scores[inside, own[inside]] = -torch.inf
            ids[rows] = drawn[scores.topk(k).indices]
        return ids.numpy()

    return run


def faiss_(kind):
    def peer(vectors, k, *arguments):
        import faiss

        faiss.omp_set_num_threads(THREADS)
        dimension, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
        arguments = [int(a) for a in arguments]

        def flat():
            return faiss.knn(vectors, vectors, k + 1, metric=metric)[1]

        def hnsw(links, ef):
            index = faiss.IndexHNSWFlat(dimension, links, metric)
            index.add(vectors)
            index.hnsw.efSearch = ef
            return index.search(vectors, k + 1)[1]

        def ivf(lists, probes):
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, metric)
            index.train(vectors)
            index.add(vectors)
            index.nprobe = probes
            return index.search(vectors, k + 1)[1]

        def descent(kept):
            # Its graph is the answer; searching it would only add time.
            index = faiss.IndexNNDescentFlat(dimension, kept, metric)
            index.add(vectors)
            return faiss.vector_to_array(index.nndescent.final_graph).reshape(len(vectors), kept)

        ways = {"flat": flat, "hnsw": hnsw, "ivf": ivf, "nndescent": descent}
        return lambda: ways[kind](*arguments)

    return peer


def usearch(vectors, k, numbers, ef):
    from usearch.index import Index

    keys = np.arange(len(vectors))

    def run():
        index = Index(ndim=vectors.shape[1], metric="cos", dtype=numbers, expansion_search=int(ef))
        index.add(keys, vectors, threads=THREADS)
        return index.search(vectors, k + 1, threads=THREADS).keys.astype(np.int64)

    return run


def pynndescent(vectors, k, kept):
    from pynndescent import NNDescent

    def run(vectors=vectors):
        # The same order for unit length, and its fastest.
        return NNDescent(vectors, "euclidean", n_neighbors=int(kept), n_jobs=THREADS).neighbor_graph[0]

    # numba compiles on the first call.
    run(vectors[:1000])
    return run


PEERS = {
    "torch-gather": torch_gather,
    "torch-shared": torch_shared,
    "faiss-flat": faiss_("flat"),
    "faiss-hnsw": faiss_("hnsw"),
    "faiss-ivf": faiss_("ivf"),
    "faiss-nndescent": faiss_("nndescent"),
    "usearch": usearch,
    "pynndescent": pynndescent,
}


def without_self(ids, k):
    """The first k ids of each row that are not the row; −1 for those that a peer has not found."""
    foreign = ids != np.arange(len(ids))[:, None]
    order = np.argsort(~foreign, axis=1, kind="stable")[:, :k]
    ids = np.where(np.take_along_axis(foreign, order, 1), np.take_along_axis(ids, order, 1), -1)
    return np.pad(ids, ((0, 0), (0, k - ids.shape[1])), constant_values=-1)


def main():
    packages = ["faiss-cpu", "numba", "numpy", "pynndescent", "torch", "usearch"]
    print("ready", ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages), flush=True)
    for line in sys.stdin:
        peer, path, dimension, rows, k, out, *arguments = line.split()
        dimension, rows, k = int(dimension), int(rows), int(k)
        vectors = np.fromfile(path, "<f4", count=rows * dimension).reshape(rows, dimension)
        run = PEERS[peer](vectors, k, *arguments)
        # A second run counts where the first touch of memory would show; see measure.rs.
        seconds = 0
        for _ in range(2):
            if seconds < SHORT:
                begun = time.perf_counter()
                ids = run()
                seconds = time.perf_counter() - begun
        ids = ids[:, :k] if peer == "torch-gather" else without_self(ids, k)
        ids.astype("<i4").tofile(out)
        print(seconds, len(ids), flush=True)


if __name__ == "__main__":
    main()
