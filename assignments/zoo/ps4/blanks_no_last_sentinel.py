# replaces: blanks_solution; loses: blanks_example, blanks_whole
# the target does not say where it ends
def blanks(ids, before, lengths, sentinels):
    text, inputs, targets, place, visible = ids.tolist(), [], [], 0, 0
    for k in range(len(lengths)):
        stop = place + before[k] - visible
        inputs += [*text[place:stop], sentinels[k]]
        targets += [sentinels[k], *text[stop : stop + lengths[k]]]
        place, visible = stop + lengths[k], before[k]
    return torch.tensor(inputs + text[place:]), torch.tensor(targets)
