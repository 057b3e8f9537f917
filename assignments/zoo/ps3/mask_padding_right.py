# replaces: stream_mask_solution; loses: mask_padding
# padding at the end of the row, as in the book, but not here
def stream_mask(lengths, queries, keys, window, first):
    t = torch.arange(keys - queries, keys)[:, None]
    j = torch.arange(keys)
    start = 0 * lengths[:, None, None]
    real = (j < lengths[:, None, None]) & (j <= t)
    kept = (t - j < window) | (j < start + first)
    return (real & kept)[:, None]
