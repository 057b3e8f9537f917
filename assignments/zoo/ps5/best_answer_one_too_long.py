# replaces: best_answer_solution; loses: best_answer_span_test
# Off by one: answers of longest + 1 tokens.
def best_answer(first, last, tokens, longest, none):
    """The most probable text of a passage, or nothing.

    Args:
        first: a, a tensor with a score for each token.
        last: b, likewise.
        tokens: a list of strings.
        longest: m, how many tokens an answer may have, at least 1.
        none: c, the score of the empty answer, a number.

    Returns:
        A text and its probability, a float; the text is "" where the empty answer is at least as probable.
    """
    spans = [(i, j) for i in range(len(tokens)) for j in range(i, min(i + longest + 1, len(tokens)))]
    scores = [float(first[i] + last[j]) for i, j in spans]
    *p, empty = torch.tensor([*scores, none], dtype=torch.float64).softmax(0).tolist()
    total, likeliest = Counter(), {}
    for share, (i, j) in zip(p, spans, strict=True):
        text = " ".join(tokens[i : j + 1])
        key = text.lower()
        total[key] += share
        if key not in likeliest or share > likeliest[key][0]:
            likeliest[key] = share, text
    key = max(total, key=total.get, default=None)
    if key is None or empty >= total[key]:
        return "", empty
    return likeliest[key][1], total[key]
