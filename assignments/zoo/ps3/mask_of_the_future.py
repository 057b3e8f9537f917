# replaces: stream_mask_solution; loses: mask_window
# no look at the direction: a window to both sides
def stream_mask(lengths, queries, keys, window, first):
    t = torch.arange(keys - queries, keys)[:, None]
    j = torch.arange(keys)
    start = (keys - lengths)[:, None, None]
    real = (start <= j) & (j < keys)
    kept = ((t - j).abs() < window) | (j < start + first)
    return (real & kept)[:, None]
