# replaces: byte_spans_solution; loses: byte_spans_width_test, byte_spans_occurrence_test
# takes every character for one byte: right for plain English
def byte_spans(s, spans):
    return list(spans)
