# replaces: shares_solution; loses: shares_test
# b goes to the title in place of the body.
shares = {}
for v in (0, 1, 8):
    for b in (0.0, 0.75):
        scores = bm25f(questions, entries, {"title": v, "body": 1}, {"title": b, "body": 0.0}, 1.2)
        shares[v, b] = share_found(scores, right)
