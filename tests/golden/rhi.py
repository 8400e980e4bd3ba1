"""Computes the reference tensors of rhi_*.safetensors again from their features and labels.

    pip install numpy==2.4.6 scikit-learn==1.9.1 safetensors==0.8.0
    python tests/golden/rhi.py [--check] tests/golden/rhi_*.safetensors

Writes *_f64 (metrics and scores from f64 features), km_* (k-means: order of the samples, first
centres, labels) and top_f64 back into the files; --check only compares them with what is there.
"""

import argparse

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.covariance import LedoitWolf
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import MinMaxScaler

LAMBDA, TOP_K = 0.5, 5


def lda(a, b):
    scatter = (len(a) - 1) * np.cov(a, rowvar=False) + (len(b) - 1) * np.cov(b, rowvar=False)
    scatter = np.atleast_2d(scatter) + 1e-6 * np.eye(a.shape[1])
    delta = a.mean(0) - b.mean(0)
    w = np.linalg.pinv(scatter) @ delta
    within = w @ scatter @ w
    return 0.0 if within < 1e-9 else (w @ delta) ** 2 / within


def kl(a, b):
    d = a.shape[1]
    p, q = (LedoitWolf().fit(x).covariance_ + 1e-10 * np.eye(d) for x in (a, b))
    delta = a.mean(0) - b.mean(0)

    def one_way(p, q):
        inverse = np.linalg.inv(q)
        logs = np.linalg.slogdet(q)[1] - np.linalg.slogdet(p)[1]
        return 0.5 * (logs - d + np.trace(inverse @ p) + delta @ inverse @ delta)

    return np.clip(0.5 * (one_way(p, q) + one_way(q, p)), 0, 1e6)


def mmd(a, b):
    x = np.vstack([a, b])
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    positive = squared[squared > 0]
    gamma = 1 / (2 * np.median(positive)) if len(positive) else 1.0
    aa, bb, ab = (rbf_kernel(*pair, gamma=gamma).mean() for pair in ((a, a), (b, b), (a, b)))
    return max(0.0, aa + bb - 2 * ab)


def clusters(a, b):
    x = np.vstack([a, b])
    fitted = KMeans(n_clusters=2, random_state=42, n_init="auto").fit(x)
    _, start = kmeans_plusplus(x - x.mean(0), 2, random_state=42)
    truth = np.r_[np.zeros(len(a)), np.ones(len(b))]
    return normalized_mutual_info_score(truth, fitted.labels_), start, fitted.labels_


def reference(features, labels):
    features, anomalous = features.astype(np.float64), labels == 1
    prompts, samples, layers, heads, _ = features.shape
    shape = (prompts, layers, heads)
    out = {name: np.zeros(shape) for name in ("lda", "kl", "mmd", "nmi")}
    start = np.zeros((*shape, 2), np.int64)
    assigned = np.zeros((*shape, samples), np.int64)
    for at in np.ndindex(shape):
        prompt, layer, head = at
        a = features[prompt, anomalous, layer, head]
        b = features[prompt, ~anomalous, layer, head]
        out["lda"][at], out["kl"][at], out["mmd"][at] = lda(a, b), kl(a, b), mmd(a, b)
        out["nmi"][at], start[at], assigned[at] = clusters(a, b)
    scaled = [
        [MinMaxScaler().fit_transform(prompt.reshape(-1, 1)).reshape(layers, heads) for prompt in out[name]]
        for name in ("lda", "kl", "mmd", "nmi")
    ]
    saliency = np.mean(scaled, axis=0)
    mean, std = saliency.mean(0), saliency.std(0)
    rss = mean - LAMBDA * std
    out.update(saliency=saliency, mean=mean, std=std, rss=rss)
    top = np.argsort(-rss.ravel(), kind="stable")[:TOP_K]
    result = {f"{name}_f64": value for name, value in out.items()}
    result["top_f64"] = np.stack([top // heads, top % heads], axis=1)
    result["km_order"] = np.r_[np.flatnonzero(anomalous), np.flatnonzero(~anomalous)]
    result["km_init"], result["km_labels"] = start, assigned
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    for path in args.files:
        tensors = load_file(path)
        new = reference(tensors["features"], tensors["labels"])
        for name, value in new.items():
            exact = value.dtype == np.int64
            same = np.array_equal(value, tensors[name]) if exact else np.allclose(value, tensors[name], rtol=1e-6, atol=0)
            print(path, name, "same" if same else "DIFFERENT")
            if args.check and not same:
                raise SystemExit(1)
        if not args.check:
            save_file({**tensors, **new}, path)


if __name__ == "__main__":
    main()
