# replaces: stream_mask_solution; loses: mask_padding
# the first columns stay visible, where the first real tokens should
def stream_mask(lengths, queries, keys, window, first):
    t = torch.arange(keys - queries, keys)[:, None]
    j = torch.arange(keys)
    start = (keys - lengths)[:, None, None]
    real = (start <= j) & (j <= t)
    kept = (t - j < window) | (j < first)
    return (real & kept)[:, None]
