# replaces: shares_solution; loses: shares_test
# Looks at the ten best.
shares = {}
for v in (0, 1, 8):
    for b in (0.0, 0.75):
        scores = bm25f(questions, entries, {"title": v, "body": 1}, {"title": 0.0, "body": b}, 1.2)
        shares[v, b] = share_found(scores, right, 10)
