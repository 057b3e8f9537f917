# replaces: pooled_solution; loses: pooled_unit_test
# nats per byte
def pooled_bits_per_byte(nats_per_token, tokens, files):
    nats = sum(mean * n for mean, n in zip(nats_per_token, tokens, strict=True) if n)
    n_bytes = sum(len(file.encode()) for file in files)
    return nats / n_bytes if n_bytes else math.nan
