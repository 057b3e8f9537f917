# replaces: bm25f_solution; loses: bm25f_fields_test
# n is how often a word occurs, not in how many documents.
def bm25f(queries, documents, weights, b, k1=1.2):
    """Scores of documents with fields.

    Args:
        queries: a list of lists of words.
        documents: a list of dicts from a field's name to a list of words; a field may be lacking.
        weights: a dict from a field's name to its weight, 0 or more. Other fields are ignored.
        b: a dict from a field's name to how much length counts there, from 0 to 1.
        k1: how late a word saturates, above 0.

    Returns:
        A tensor of shape (queries, documents).
    """
    counts = [Counter() for _ in documents]  # c, and for every word that a document holds an entry, if only 0
    for field, weight in weights.items():
        mean = sum(len(document.get(field, ())) for document in documents) / len(documents)
        for table, document in zip(counts, documents, strict=True):
            words = document.get(field, ())
            for word, count in Counter(words).items():
                table[word] += weight * count / (1 - b[field] + b[field] * len(words) / mean)
    holding = Counter(word for document in documents for field in weights for word in document.get(field, ()))
    scores = torch.zeros(len(queries), len(documents), dtype=torch.float64)
    parts = {}  # what a word adds to each document
    for q, query in enumerate(queries):
        for word in query:
            if word not in parts:
                idf = math.log(1 + (len(documents) - holding[word] + 0.5) / (holding[word] + 0.5))
                part = [idf * table[word] / (k1 + table[word]) for table in counts]
                parts[word] = torch.tensor(part, dtype=torch.float64)
            scores[q] += parts[word]
    return scores
