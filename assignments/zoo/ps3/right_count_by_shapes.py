# replaces: counting_solution; full marks
# a list of shapes, and a loop over the blocks
def count_weights(vocab, d_model, layers, heads, kv_heads, d_head, d_hidden, tied):
    q, kv = heads * d_head, kv_heads * d_head
    block = [(q, d_model), (q,), (kv, d_model), (kv,), (kv, d_model), (kv,), (d_model, q), (d_model,), (d_model,)]
    block += [(d_hidden, d_model), (d_hidden, d_model), (d_model, d_hidden)]
    shapes = [(vocab, d_model), (d_model,)] + layers * block
    if not tied:
        shapes.append((vocab, d_model))
    return sum(math.prod(shape) for shape in shapes)


def cache_bytes(tokens, layers, kv_heads, d_head, window, every, bytes_per_number=2):
    total = 0
    for block in range(1, layers + 1):
        slots = tokens if block % every == 0 else min(window, tokens)
        total += slots * kv_heads * d_head * bytes_per_number * 2
    return total
