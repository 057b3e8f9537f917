# replaces: blanks_solution; loses: blanks_example
# takes `before` for places in the text: after the first span everything stands too early
def blanks(ids, before, lengths, sentinels):
    text, inputs, targets, place = ids.tolist(), [], [], 0
    for k in range(len(lengths)):
        inputs += [*text[place : before[k]], sentinels[k]]
        targets += [sentinels[k], *text[before[k] : before[k] + lengths[k]]]
        place = before[k] + lengths[k]
    return torch.tensor(inputs + text[place:]), torch.tensor([*targets, sentinels[len(lengths)]])
