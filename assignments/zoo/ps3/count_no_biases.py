# replaces: counting_solution; loses: count_published
# queries, keys and values without their biases
def count_weights(vocab, d_model, layers, heads, kv_heads, d_head, d_hidden, tied):
    attention_ = 2 * d_model * heads * d_head + 2 * kv_heads * d_head * d_model
    block = attention_ + 3 * d_model * d_hidden + 2 * d_model
    return vocab * d_model * (1 if tied else 2) + layers * block + d_model


def cache_bytes(tokens, layers, kv_heads, d_head, window, every, bytes_per_number=2):
    whole = layers // every
    slots = whole * tokens + (layers - whole) * min(tokens, window)
    return 2 * slots * kv_heads * d_head * bytes_per_number
