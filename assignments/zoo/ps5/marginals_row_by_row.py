# replaces: marginals_solution; loses: marginals_long_test
# All rows are written down, which ends at some ten words.
def marginals(emissions, transitions, allowed=None):
    """The definition, as it stands."""
    n, tags = emissions.shape
    if tags**n > 100_000:
        raise MemoryError(f"{tags} ** {n} rows")
    may = torch.ones(n, tags, dtype=torch.bool) if allowed is None else allowed
    if not may.any(1).all():
        raise ValueError("a word has no allowed tag")
    rows = list(itertools.product(*[[k for k in range(tags) if may[t, k]] for t in range(n)]))
    scores = torch.tensor([row_score(emissions, transitions, row) for row in rows], dtype=torch.float64)
    posterior = torch.zeros(n, tags, dtype=torch.float64)
    for row, share in zip(rows, scores.softmax(0), strict=True):
        posterior[range(n), row] += share
    return scores.logsumexp(0), posterior
