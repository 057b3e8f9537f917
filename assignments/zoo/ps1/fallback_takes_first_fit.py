# replaces: fallback_solution; loses: fallback_longest_test
# takes the first piece of the list that fits, not the longest
def encode_fallback(s, pieces):
    number = {piece: 256 + n for n, piece in enumerate(pieces)}
    ids, at = [], 0
    while at < len(s):
        for piece in pieces:
            if s.startswith(piece, at):
                ids.append(number[piece])
                at += len(piece)
                break
        else:
            ids.extend(s[at].encode())
            at += 1
    return ids


def decode_fallback(ids, pieces):
    spelled = b"".join(pieces[i - 256].encode() if i >= 256 else bytes([i]) for i in ids)
    return spelled.decode(errors="replace")
