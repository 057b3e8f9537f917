# replaces: bm25f_solution; loses: bm25f_fields_test, bm25f_length_test
# A weighted sum of one BM25 for each field.
def bm25f(queries, documents, weights, b, k1=1.2):
    """BM25 by field, added up."""
    holding = Counter()
    for document in documents:
        holding.update({word for field in weights for word in document.get(field, ())})
    scores = torch.zeros(len(queries), len(documents), dtype=torch.float64)
    idf = {word: math.log(1 + (len(documents) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}
    for field, weight in weights.items():
        mean = sum(len(document.get(field, ())) for document in documents) / len(documents)
        for d, document in enumerate(documents):
            words = document.get(field, ())
            if not words:
                continue
            norm, counts = 1 - b[field] + b[field] * len(words) / mean, Counter(words)
            for q, query in enumerate(queries):
                found = [(idf[word], counts[word] / norm) for word in query if word in counts]
                scores[q, d] += weight * sum(value * c / (k1 + c) for value, c in found)
    return scores
