# replaces: stream_mask_solution; loses: mask_window, mask_cache
# a window of w + 1: the query's own column is forgotten in the count
def stream_mask(lengths, queries, keys, window, first):
    t = torch.arange(keys - queries, keys)[:, None]
    j = torch.arange(keys)
    start = (keys - lengths)[:, None, None]
    real = (start <= j) & (j <= t)
    kept = (t - j <= window) | (j < start + first)
    return (real & kept)[:, None]
