# replaces: byte_spans_solution; loses: byte_spans_occurrence_test
# finds the first equal token instead of this one
def byte_spans(s, spans):
    found = []
    for a, b in spans:
        token = s[a:b].encode()
        at = s.encode().find(token)
        found.append((at, at + len(token)))
    return found
