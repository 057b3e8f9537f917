# replaces: counting_solution; loses: count_published
# knows one number
def count_weights(vocab, d_model, layers, heads, kv_heads, d_head, d_hidden, tied):
    return 494_032_768


def cache_bytes(tokens, layers, kv_heads, d_head, window, every, bytes_per_number=2):
    whole = layers // every
    slots = whole * tokens + (layers - whole) * min(tokens, window)
    return 2 * slots * kv_heads * d_head * bytes_per_number
