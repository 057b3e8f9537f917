# replaces: masked_solution; loses: masked_padding_test, masked_gradient_test
# 0 times nan is nan
def masked_means(logits, targets, lengths):
    real = torch.arange(targets.shape[1]) < lengths[:, None]
    z = logits
    losses = F.cross_entropy(z.mT, targets.where(real, 0), reduction="none") * real
    sums = losses.sum(1)
    per_sentence = (sums / lengths.clamp(min=1)).sum() / (lengths > 0).sum().clamp(min=1)
    return sums.sum() / lengths.sum().clamp(min=1), per_sentence
