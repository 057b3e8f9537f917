# replaces: fallback_solution; loses: fallback_decode_test, fallback_round_trip_test
# off by one between ids and pieces
def encode_fallback(s, pieces):
    number = {piece: 256 + n for n, piece in enumerate(pieces)}
    longest = max(map(len, pieces), default=0)
    ids, at = [], 0
    while at < len(s):
        for size in range(min(longest, len(s) - at), 0, -1):
            if s[at : at + size] in number:
                ids.append(number[s[at : at + size]])
                at += size
                break
        else:
            ids.extend(s[at].encode())
            at += 1
    return ids


def decode_fallback(ids, pieces):
    spelled = b"".join(pieces[i - 257].encode() if i > 256 else bytes([i]) for i in ids)
    return spelled.decode(errors="replace")
