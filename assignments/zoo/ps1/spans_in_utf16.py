# replaces: byte_spans_solution; loses: byte_spans_width_test
# the bytes of another encoding
def byte_spans(s, spans):
    at = [0]
    for character in s:
        at.append(at[-1] + len(character.encode("utf-16-le")))
    return [(at[a], at[b]) for a, b in spans]
