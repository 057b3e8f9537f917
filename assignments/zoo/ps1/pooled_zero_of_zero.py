# replaces: pooled_solution; loses: pooled_sum_test
# nothing measured looks perfect
def pooled_bits_per_byte(nats_per_token, tokens, files):
    nats = sum(mean * n for mean, n in zip(nats_per_token, tokens, strict=True) if n)
    n_bytes = sum(len(file.encode()) for file in files)
    return nats / math.log(2) / n_bytes if n_bytes else 0.0
