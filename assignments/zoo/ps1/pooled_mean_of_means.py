# replaces: pooled_solution; loses: pooled_sum_test
# the mean of the files' means
def pooled_bits_per_byte(nats_per_token, tokens, files):
    rows = zip(nats_per_token, tokens, files, strict=True)
    each = [mean * n / math.log(2) / len(file.encode()) for mean, n, file in rows if n]
    return sum(each) / len(each) if each else math.nan
