"""Makes metrics.json (ROC-AUC, average precision, trapezoid area under the PR curve, as
scikit-learn computes them), dataset_metrics.json (the same of made-up scores on every frame of
UCF-Crime's and XD-Violence's test videos, read here by their own few lines, and per class),
scorer_free_intercept.json (logistic regression whose intercept is not penalised, on the features of
the scorer_* files) and svm.json (LinearSVC on the same).

Made with Python 3.11.7, numpy 2.4.6, scikit-learn 1.9.1 and safetensors 0.8.0:
    python make_metrics.py
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

HERE = Path(__file__).parent


def metrics():
    rng = np.random.default_rng(20260101)
    cases = []

    def case(name, scores, labels):
        scores, labels = np.asarray(scores, float), np.asarray(labels, int)
        precision, recall, _ = precision_recall_curve(labels, scores)
        cases.append(
            {
                "name": name,
                "scores": scores.tolist(),
                "labels": labels.tolist(),
                "roc_auc": float(roc_auc_score(labels, scores)),
                "average_precision": float(average_precision_score(labels, scores)),
                "pr_auc_trapezoid": float(auc(recall, precision)),
            }
        )

    labels = rng.random(400) < 0.2
    case("random", rng.random(400).round(6), labels)
    case("informed", (labels + rng.normal(size=400)).round(6), labels)
    case("rounded to 0.1", np.round(0.3 * labels + 0.7 * rng.random(400), 1), labels)
    case("two values", (rng.random(400) < 0.3 + 0.3 * labels), labels)
    case("all tied", np.full(50, 0.5), labels[:50])
    # What evaluation sees: 48 frames share a score, labels change within them.
    held = np.repeat(rng.random(20).round(3), 48)
    truth = np.zeros(len(held), int)
    truth[100:331] = 1
    truth[700:703] = 1
    case("held for 48 frames", held, truth)
    case("one positive, last", [0.9, 0.8, 0.7, 0.1], [0, 0, 0, 1])
    case("one negative, first", [0.9, 0.8, 0.7, 0.1], [0, 1, 1, 1])
    case("perfect", [0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
    case("reversed, with negative scores", [-3.0, -2.0, 5.0, 7.5], [1, 1, 0, 0])
    return {"cases": cases}


def ucf_crime(folder):
    """(name, class, [(first, end)]) of every test video, in the annotations' order."""
    for line in (folder / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt").read_text().splitlines():
        if not line.split():
            continue
        name, kind, *numbers = line.split()
        a, b, c, d = map(int, numbers)
        events = [(s, e + 1) for s, e in ((a, b), (c, d)) if s >= 0]
        yield name.removesuffix(".mp4"), [] if kind == "Normal" else [kind], events


def xd_violence(folder):
    """The same, in the order of the frame counts."""
    events = {}
    for line in (folder / "annotations.txt").read_text().splitlines():
        if not line.split():
            continue
        name, *numbers = line.split()
        numbers = list(map(int, numbers))
        pairs = zip(numbers[::2], numbers[1::2])
        events[name.removesuffix(".mp4")] = [(s, e + 1) for s, e in pairs]
    for name in counts(folder):
        codes = name.rsplit("label_", 1)[1].split("-")
        classes = [] if codes == ["A"] else sorted({c for c in codes if c != "0"})
        yield name, classes, events.get(name, [])


def counts(folder):
    rows = (folder / "frame_counts.csv").read_text().splitlines()[1:]
    return {n.removesuffix(".mp4"): int(f) for n, f in (row.rsplit(",", 1) for row in rows)}


def datasets():
    out = {}
    for key, read in (("ucf_crime", ucf_crime), ("xd_violence", xd_violence)):
        folder = HERE / "datasets" / key
        frames = counts(folder)
        scores, labels, classes_of = [], [], []
        for number, (name, classes, events) in enumerate(read(folder)):
            n = frames[name]
            frame = np.arange(n, dtype=np.int64)
            hashed = (number * 7919 + frame * 104729 + frame * frame * 31) % 10007
            truth = np.zeros(n, int)
            for first, end in events:
                truth[first:end] = 1
            scores.append(hashed / 10007)
            labels.append(truth)
            classes_of.append(classes)
        out[key] = {"videos": len(scores), "frames": int(sum(map(len, scores)))}
        for tied in (False, True):
            s = [np.floor(x * 20) / 20 if tied else x for x in scores]
            flat, truth = np.concatenate(s), np.concatenate(labels)
            precision, recall, _ = precision_recall_curve(truth, flat)
            per_class = {}
            for kind in sorted({c for classes in classes_of for c in classes}):
                keep = [i for i, c in enumerate(classes_of) if not c or kind in c]
                per_class[kind] = float(
                    roc_auc_score(
                        np.concatenate([labels[i] for i in keep]),
                        np.concatenate([s[i] for i in keep]),
                    )
                )
            out[key]["tied" if tied else "random"] = {
                "positives": int(truth.sum()),
                "roc_auc": float(roc_auc_score(truth, flat)),
                "average_precision": float(average_precision_score(truth, flat)),
                "pr_auc_trapezoid": float(auc(recall, precision)),
                "per_class": per_class,
            }
    return out


def svm():
    out = {}
    for name in ("small_n40_d16", "wide_n40_d128"):
        file = load_file(HERE / f"scorer_{name}.safetensors")
        x, y = file["features"].astype(float), file["labels"]
        fitted = LinearSVC(C=1.0, tol=1e-12, max_iter=100_000, dual=False).fit(x, y)
        out[name] = {"coef": fitted.coef_[0].tolist(), "intercept": float(fitted.intercept_[0])}
    return out


def free_intercept():
    out = {}
    for name in ("small_n40_d16", "wide_n40_d128"):
        file = load_file(HERE / f"scorer_{name}.safetensors")
        x = file["features"].astype(float)
        y = file["labels"].astype(float)
        n, d = x.shape
        x1 = np.hstack([x, np.ones((n, 1))])
        penalty = np.append(np.ones(d), 0.0)
        w = np.zeros(d + 1)
        for _ in range(50):
            p = 1 / (1 + np.exp(-x1 @ w))
            gradient = x1.T @ (p - y) + penalty * w
            hessian = (x1 * (p * (1 - p))[:, None]).T @ x1 + np.diag(penalty)
            w -= np.linalg.solve(hessian, gradient)
        assert np.linalg.norm(gradient) < 1e-10
        reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x, y)
        assert np.abs(reference.coef_[0] - w[:-1]).max() < 1e-5
        assert abs(reference.intercept_[0] - w[-1]) < 1e-5
        out[name] = {"coef": w[:-1].tolist(), "intercept": float(w[-1])}
    return out


if __name__ == "__main__":
    (HERE / "metrics.json").write_text(json.dumps(metrics()))
    (HERE / "scorer_free_intercept.json").write_text(json.dumps(free_intercept()))
    (HERE / "dataset_metrics.json").write_text(json.dumps(datasets(), indent=1) + "\n")
    (HERE / "svm.json").write_text(json.dumps(svm()))
