# replaces: best_two_solution; full marks
# Viterbi, then Viterbi again with one word forced off the best row, each in turn.
def viterbi_row(E, A):
    """The best row and its score."""
    score, back = E[0], []
    for emission in E[1:]:
        score, came = (score.unsqueeze(1) + A).max(dim=0)
        score = score + emission
        back.append(came)
    tag = score.argmax().item()
    row = [tag]
    for came in back[::-1]:
        tag = came[tag].item()
        row.insert(0, tag)
    return score.max().item(), row


def best_two(emissions, transitions, forbidden):
    """The runner-up differs from the best row at some word: try them all."""
    A = transitions.clone()
    A[forbidden] = float("-inf")
    best = viterbi_row(emissions, A)
    if best[0] == float("-inf"):
        raise ValueError("no row is left")
    candidates = []
    for t in range(len(emissions)):
        E = emissions.clone()
        E[t, best[1][t]] = float("-inf")
        candidates.append(viterbi_row(E, A))
    runner_up = max(candidates)
    return [best] if runner_up[0] == float("-inf") else [best, runner_up]
