# replaces: pieces_solution; loses: gather_mean_test
# The mean of logits, and a softmax behind it.
def spread(tags, word_ids):
    """A tag for every piece.

    Args:
        tags: a list of BIO tags, one for each word.
        word_ids: for each piece the number of its word, or None for a special token.

    Returns:
        A list with a tag or None for each piece.
    """
    spread_tags, before = [], None
    for word in word_ids:
        tag = None if word is None else tags[word]
        spread_tags.append("I" + tag[1:] if tag and tag != "O" and word == before else tag)
        before = word
    return spread_tags


def gather(scores, word_ids, words):
    """Log-probabilities of the tags of each word.

    Args:
        scores: logits, a tensor of shape (pieces, tags); they are not normalised.
        word_ids: for each piece the number of its word, or None for a special token.
        words: how many words there are.

    Returns:
        A tensor of shape (words, tags); minus infinity where a probability is zero.
    """
    kept = [piece for piece, word in enumerate(word_ids) if word is not None]
    of = torch.tensor([word_ids[piece] for piece in kept], dtype=torch.long)
    total = scores.new_zeros(words, scores.shape[1]).index_add(0, of, scores[kept])
    count = torch.bincount(of, minlength=words)
    mean = total / count.clamp(min=1)[:, None]
    mean[count == 0, 0] = 1
    mean[count > 0] = mean[count > 0].softmax(1)
    return mean.log()
