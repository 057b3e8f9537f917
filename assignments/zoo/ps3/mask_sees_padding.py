# replaces: stream_mask_solution; loses: mask_padding
# the first tokens are added after the padding has been taken away
def stream_mask(lengths, queries, keys, window, first):
    t = torch.arange(keys - queries, keys)[:, None]
    j = torch.arange(keys)
    start = (keys - lengths)[:, None, None]
    real = (start <= j) & (j <= t) & (t - j < window)
    kept = (j < start + first) & (j <= t)
    return (real | kept)[:, None]
