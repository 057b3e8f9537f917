# replaces: stream_mask_solution; loses: mask_cache
# queries counted from the first column, as torch's is_causal does
def stream_mask(lengths, queries, keys, window, first):
    t = torch.arange(queries)[:, None]
    j = torch.arange(keys)
    start = (keys - lengths)[:, None, None]
    real = (start <= j) & (j <= t)
    kept = (t - j < window) | (j < start + first)
    return (real & kept)[:, None]
