# replaces: fallback_solution; loses: fallback_bytes_test
# loses the rest of the text behind a character of several bytes
def encode_fallback(s, pieces):
    t, spelled = s.encode(), [piece.encode() for piece in pieces]
    ids, at = [], 0
    while at < len(t):
        fits = [(len(piece), n) for n, piece in enumerate(spelled) if t.startswith(piece, at)]
        if fits:
            ids.append(256 + max(fits)[1])
            at += max(fits)[0]
        else:
            ids.append(t[at])
            at = len(t) if t[at] > 127 else at + 1  # gives up behind the first strange byte
    return ids


def decode_fallback(ids, pieces):
    return b"".join(pieces[i - 256].encode() if i >= 256 else bytes([i]) for i in ids).decode(errors="replace")
