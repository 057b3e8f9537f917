# replaces: byte_spans_solution; loses: byte_spans_width_test, byte_spans_occurrence_test
# makes tokens longer and forgets that they move
def byte_spans(s, spans):
    return [(a, a + len(s[a:b].encode())) for a, b in spans]
