# replaces: backoff_solution; full marks
# right: loops over rows, and one minus the seen words below
def backoff_weights(pairs, k, D):
    below = [sum(column) + k for column in pairs.T.tolist()]
    below = [value / sum(below) for value in below]
    alphas = []
    for row in pairs.tolist():
        kinds = sum(c > 0 for c in row)
        if kinds == 0:
            alphas.append(1.0)
        elif kinds == len(row):
            alphas.append(0.0)
        else:
            alphas.append(D * kinds / sum(row) / (1 - sum(q for q, c in zip(below, row, strict=True) if c)))
    return np.array(alphas)


def backoff(pairs, k, D):
    lower = pairs.sum(axis=0) + k
    lower = lower / lower.sum()
    rows = []
    for counts, alpha in zip(pairs, backoff_weights(pairs, k, D), strict=True):
        row = alpha * lower
        seen = counts > 0
        row[seen] = (counts[seen] - (0 if seen.all() else D)) / counts.sum()
        rows.append(row)
    return np.stack(rows)
