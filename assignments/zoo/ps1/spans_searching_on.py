# replaces: byte_spans_solution; loses: byte_spans_occurrence_test
# searches on behind the last token: a letter that was left out is found instead
def byte_spans(s, spans):
    t, found, at = s.encode(), [], 0
    for a, b in spans:
        token = s[a:b].encode()
        at = t.find(token, at)
        found.append((at, at + len(token)))
        at += len(token)
    return found
