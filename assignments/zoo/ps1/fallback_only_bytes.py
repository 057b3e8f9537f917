# replaces: fallback_solution; loses: fallback_longest_test, fallback_bytes_test, fallback_round_trip_test
# the laziest round trip: never uses a piece
def encode_fallback(s, pieces):
    return list(s.encode())


def decode_fallback(ids, pieces):
    return b"".join(pieces[i - 256].encode() if i >= 256 else bytes([i]) for i in ids).decode(errors="replace")
